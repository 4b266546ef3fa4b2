"""Any folder of images, class = folder: ``root/<class>/…`` or ``root/{train,val,test}/<class>/…``."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded
from genaug.core.identity import content_digest
from genaug.core.registry import component
from genaug.data.images import check_readable, inspect_all
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.base import FolderSource
from genaug.data.sources.layout import Layout, class_folders
from genaug.data.splits import carve


@component("dataset", "image_folder")
@dataclass(kw_only=True, slots=True)
class ImageFolder(FolderSource):
    """Classification images in folders. EXIF rotation is applied; grey, palette and transparent images become RGB.

    Folders of splits are known by their usual names (``train``, ``training_set``, ``valid``, ``test`` …, in any case, also
    one inside another of its name). A split that is missing is carved from the training images, per class, by
    ``split_seed``: the same for every trial. What is left out is counted by reason in the notes.
    """

    class_names: list[str] | None = None
    """Class folders to read, whatever else lies beside them; null takes all, and refuses those that look like splits,
    annotations or other data sets."""
    val_fraction: float = bounded(0.2, 0, 1, below=True)
    """Share of each class carved from train for validation where there is no validation folder, in [0, 1)."""
    test_fraction: float = bounded(0.25, 0, 1, above=True, below=True)
    """Share of each class taken for the test where there is no test folder, in (0, 1)."""
    split_seed: int = bounded(0, 0)
    """Seed of the carved splits; not the trial's seed."""
    skip_corrupt: bool = False
    """Leave unreadable images out, counted in the result's notes, instead of refusing them."""

    version: ClassVar[int] = 1

    def files(self) -> list[Path]:
        return [path for classes in self._layout().splits.values() for paths in classes.values() for path in paths]

    def _layout(self) -> Layout:
        return class_folders(self.folder(), self.class_names)

    def read(self) -> Dataset:
        root, layout = self.folder(), self._layout()
        notes = Counter(layout.left_out)
        facts = inspect_all(path for classes in layout.splits.values() for paths in classes.values() for path in paths)
        if not self.skip_corrupt:
            check_readable(facts, "Repair or remove them, or write dataset.skip_corrupt=true to leave them out.")
        index = {name: i for i, name in enumerate(layout.class_names)}
        samples: dict[str, list[Sample]] = {}
        for split, classes in layout.splits.items():
            for name, paths in sorted(classes.items()):
                readable = [path for path in paths if facts[path].fault is None]
                notes["corrupt_images_skipped"] += len(paths) - len(readable)
                notes["images_of_several_frames_first_frame_taken"] += sum(facts[p].num_frames > 1 for p in readable)
                if split == "train" and not readable:
                    raise GenaugError(f"No image of the class {name!r} can be read, e.g. {facts[paths[0]].fault}.")
                samples.setdefault(split, []).extend(
                    Sample(
                        id=path.relative_to(root).as_posix(),
                        digest=content_digest(path),
                        image=path,
                        label={index[name]: 1.0},
                    )
                    for path in readable
                )
        num_classes = len(index)
        carved = [s for s, share in (("val", self.val_fraction), ("test", 1)) if s not in samples and share]
        if "test" not in samples:
            samples["train"], samples["test"] = carve(
                samples["train"], num_classes, self.test_fraction, self.split_seed
            )
        if "val" not in samples and self.val_fraction:
            samples["train"], samples["val"] = carve(samples["train"], num_classes, self.val_fraction, self.split_seed)
        return Dataset(
            name=self.name,
            task=self.task,
            class_names=tuple(name.replace("_", " ") for name in layout.class_names),
            train=tuple(samples["train"]),
            val=tuple(samples.get("val", ())),
            test=tuple(samples["test"]),
            notes={reason: count for reason, count in notes.items() if count},
            carved=tuple(carved),
            remarks=layout.remarks,
        )
