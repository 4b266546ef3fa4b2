"""Which stages a run needs: the line from its data set to its result."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genaug.config import RunConfig
from genaug.core.identity import Texts
from genaug.data.sample import Dataset
from genaug.stages import Erase, Fit, Generate, Interpolate, Select, Stage, Train


@dataclass(kw_only=True, slots=True)
class Line:
    """The stages that one run needs."""

    erase: list[Erase]
    fit: Fit | None
    generate: Generate | None
    select: Select | None
    interpolate: Interpolate | None
    train: Train | None

    def __iter__(self) -> Iterator[Stage]:
        later = (self.fit, self.generate, self.select, self.interpolate, self.train)
        return iter([*self.erase, *(stage for stage in later if stage is not None)])

    @property
    def places(self) -> list[Path]:
        """Where the artefacts lie that the run needs."""
        return [stage.place for stage in self if stage.place is not None]


def line_of(config: RunConfig, dataset: Dataset, texts: Texts | None = None) -> Line:
    """The stages of a run on this data set (all tasks but ``prior``); ``texts`` remembers what many runs share."""
    texts = texts or Texts()
    line = Line(erase=[], fit=None, generate=None, select=None, interpolate=None, train=None)
    if config.task == "train":
        line.train = Train(config=config)
    if not config.synthesises:
        return line
    if config.leakage.erasure is not None and config.generator.uses_prior:
        groups = zip(dataset.class_names, dataset.train_by_class(), strict=True)
        line.erase = [Erase(config=config, texts=texts, concept=name) for name, group in groups if group]
    line.fit = Fit(config=config, texts=texts, dataset=dataset)
    if config.task == "fit":
        return line
    if config.task == "train" and config.generator.online:
        line.interpolate = Interpolate(config=config, dataset=dataset)
        return line
    line.generate = Generate(config=config, texts=texts, dataset=dataset, fitted=line.fit.key)
    if config.task == "train" and config.filter.active:
        line.select = Select(config=config, texts=texts, dataset=dataset, pool=line.generate.key)
    return line
