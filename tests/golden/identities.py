"""Identities of every preset and of every experiment's first and last run, as they stand in ``fingerprints.json``.

``python -m tests.golden.identities`` computes them again, prints what differs and writes the file. A commit that moves code
changes nothing in it; a commit that means to change an identity says so and bumps the component's ``version``.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

from genaug.composition import compose_typed
from genaug.config import RunConfig
from genaug.core.errors import GenaugError
from genaug.core.identity import canonical, fingerprint
from genaug.data.sample import Dataset
from genaug.runs.cell import cell_fingerprint
from genaug.tables.overview import OWN
from genaug.tables.spec import items, members
from genaug.tables.sweep import Sweep, expand
from tests.conftest import ROOT

FILE = Path(__file__).with_name("fingerprints.json")
GROUPS = sorted(
    path.relative_to(ROOT / "conf").as_posix()
    for path in (ROOT / "conf").rglob("*")
    if path.is_dir() and path.relative_to(ROOT / "conf").parts[0] not in ("hydra", "preset", "experiment")
)


def compose(*overrides: str) -> RunConfig:
    """Composed, with what the errors ask for: ``somewhere`` for a folder, class names for a preset that needs them."""
    for _ in range(4):
        try:
            return compose_typed(list(overrides))
        except GenaugError as error:
            if needed := re.match(r"([\w.]+) is needed here", str(error)):
                overrides = (*overrides, f"{needed[1]}=somewhere")
            elif "allow_reference_bugs=true" in str(error):
                overrides = (*overrides, "generator.tokens.allow_reference_bugs=true")
            elif "generator.sentences.path=FILE" in str(error):
                overrides = (*overrides, "generator.sentences.texts=[a photo]")
            elif "leakage=none" in str(error):  # a preset that needs class names is refused under data_centric
                overrides = (*overrides, "leakage=none")
            else:
                raise
    raise AssertionError(f"{overrides} still lack something")


PRESETS = [(group, path.stem) for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
ITEMS = [item for item in items() if not item.startswith(OWN)]
"""All experiments but the ones on a user's images, whose settings depend on these."""
WITH_RUNS = [item for item in ITEMS if members(item) == [item]]
"""Those but the means over data sets, which have no run of their own."""
PARENTS = {
    "generator/tokens": ("generator=diff_mix",),
    "generator/lora": ("generator=diff_mix",),
    "leakage/erasure": ("leakage=model_centric",),
    "generator/lora_fit": ("generator=pipeline",),
}
"""What a preset needs around it."""
ADDED = ("generator/sentences", "generator/collage", "generator/lora_fit")
"""Groups that no configuration has unless they are added with ``+``."""


def with_preset(group: str, name: str) -> RunConfig:
    return compose(*PARENTS.get(group, ()), f"{'+' * (group in ADDED)}{group}={name}")


def component_of(config: RunConfig, group: str) -> Any:
    return functools.reduce(getattr, group.split("/"), config)


@functools.cache
def embedded(name: str) -> Dataset:
    few = "dataset.shots=2" if name == "digits" else "dataset.fraction=0.1"
    return compose(f"dataset={name}", few).dataset.load()


def of_preset(config: RunConfig, group: str, name: str) -> dict[str, str]:
    """Identity of one preset's component; of a generator's also what it learns and its first image on embedded data."""
    found = {"component": fingerprint(canonical(component_of(config, group), read=False))}
    if group == "generator":
        dataset = embedded("digits" if "classification" in config.generator.tasks else "digit_scenes")
        fit = config.generator.fit_fingerprint(dataset, config.prior_identity())
        found["fit"] = fit
        if config.generator.makes_pool and name != "folder":  # its images are on the user's disk
            found["image"] = config.generator.variant_of(dataset.train[0], 0, dataset, fit).fingerprint
    return found


def of_run(config: RunConfig) -> str:
    """Identity of a run; where its data or weights are not on this machine, of everything that its configuration says."""
    if config.dataset.embedded and config.prior.folder is not None:
        return cell_fingerprint(config)
    names = ("task", "seed", "dataset", "prior", "leakage", "generator", "filter", "mix", "augment", "downstream")
    return fingerprint(*(canonical(getattr(config, name), read=False) for name in names), canonical(config.trainer))


def of_experiment(sweep: Sweep) -> dict[str, str]:
    """Identities of the first and the last run of an experiment's sweep."""
    configs = [cell.config for cell in sweep.cells if cell.config is not None]
    return {"first": of_run(configs[0]), "last": of_run(configs[-1])}


def identities() -> dict[str, dict[str, str]]:
    """``{"generator/psld": {"component": …, "fit": …, "image": …}, "experiment/demo/compare": {"first": …, "last": …}}``."""
    presets = {f"{group}/{name}": of_preset(with_preset(group, name), group, name) for group, name in PRESETS}
    return presets | {f"experiment/{item}": of_experiment(expand(item, [])) for item in WITH_RUNS}


def on_record() -> dict[str, dict[str, str]]:
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def changed(key: str, new: dict[str, str]) -> str:
    """In what the identities of a preset or an experiment are not those on record; empty if they are."""
    lines = difference({key: on_record().get(key, {})}, {key: new})
    remedy = "if meant: bump the component's version, python -m tests.golden.identities"
    return "\n".join([*lines, remedy]) if lines else ""


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line for each entry that is new, gone or changed."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        for part in sorted(old.get(key, {}).keys() | new.get(key, {}).keys()):
            before, after = old.get(key, {}).get(part), new.get(key, {}).get(part)
            if before != after:
                lines.append(f"{key} {part}: {before} -> {after}")
    return lines


def main() -> None:
    new = identities()
    print("\n".join(difference(on_record(), new)) or "nothing differs")
    FILE.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
