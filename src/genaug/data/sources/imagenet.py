"""ILSVRC 2012 and its 100-class subsets, read by torchvision's loader."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import choice
from genaug.core.identity import digest_bytes
from genaug.core.registry import component
from genaug.data.sample import Dataset
from genaug.data.sources.imagenet_lists import CMC_WNIDS, DA_FUSION_NAMES
from genaug.data.sources.published import Origin, Published, samples_of_files, unique_names

CLASSES = ("all", "cmc", "da_fusion")


@component("dataset", "ilsvrc2012")
@dataclass(kw_only=True, slots=True)
class Ilsvrc2012(Published):
    """1,000 classes, 1,281,167 training images; the 50,000 validation images are the test, since the test labels are
    not public, and validation is carved from train. Class names are the first synonyms.

    ``root`` holds torchvision's layout: ``train/<wnid>/*.JPEG``, ``val/<wnid>/*.JPEG`` and the devkit (or the
    archives, which torchvision unpacks). Images are identified by path and size, not by content.
    """

    classes: str = choice("all", CLASSES)
    """``all``; ``cmc``: the ImageNet-100 of Contrastive Multiview Coding; ``da_fusion``: the 100 names of DA-Fusion's
    released code (its validation list was never released: here all validation images of these classes are the test)."""

    version: ClassVar[int] = 1
    origin: ClassVar[Origin] = Origin(
        title="ILSVRC 2012 (ImageNet)",
        page="https://image-net.org/challenges/LSVRC/2012/2012-downloads.php (needs an account)",
        files="ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz",
        size="148 GB + 6.7 GB",
        licence="for non-commercial research and education only",
        can_download=False,
    )

    def content(self) -> Any:
        self._require()
        counts = [
            f"{split}/{folder.name} {sum(1 for _ in _pictures(folder))}"
            for split in ("train", "val")
            for folder in sorted((self.folder / split).iterdir())
            if folder.is_dir()
        ]
        return digest_bytes("\n".join(counts).encode())

    def read(self) -> Dataset:
        from torchvision.datasets import ImageNet

        self._require()
        synonyms = {
            wnid: names for wnid, names in self._names(ImageNet).items() if (self.folder / "train" / wnid).is_dir()
        }
        wnids = self._chosen(synonyms)
        samples = {}
        for split in ("train", "val"):
            files = [
                (path, i) for i, wnid in enumerate(wnids) for path in sorted(_pictures(self.folder / split / wnid))
            ]
            samples[split] = samples_of_files(self.folder, files, by_listing=True)
        names = unique_names([synonyms[wnid][0] for wnid in wnids], wnids)
        return self.dataset(names, samples["train"], samples["val"])

    def _names(self, loader: Any) -> Mapping[str, Sequence[str]]:
        """Synonyms by WordNet id; torchvision unpacks here what is still in archives."""
        from torchvision.datasets.imagenet import load_meta_file

        try:
            for split in ("train", "val"):
                if not (self.folder / split).is_dir() or not (self.folder / "meta.bin").exists():
                    loader(self.folder, split=split)
            return load_meta_file(self.folder)[0]
        except (RuntimeError, OSError) as error:
            missing = self.origin.missing(self.root, self.folder / "ILSVRC2012_devkit_t12.tar.gz")
            raise GenaugError(f"torchvision cannot read {self.folder}: {error}. {missing}") from error

    def _chosen(self, synonyms: Mapping[str, Sequence[str]]) -> list[str]:
        if self.classes == "all":
            return sorted(synonyms)
        if self.classes == "cmc":
            wanted = sorted(CMC_WNIDS)
        else:
            by_name: dict[str, str] = {}
            for place in range(2):  # first synonyms first; "hen of the woods" is a second one
                for wnid in sorted(synonyms):  # "crane" is two classes: the bird comes first
                    if len(synonyms[wnid]) > place:
                        by_name.setdefault(synonyms[wnid][place], wnid)
            wanted = [by_name.get(name, name) for name in DA_FUSION_NAMES]
        absent = [wnid for wnid in wanted if wnid not in synonyms]
        if absent:
            raise GenaugError(f"dataset.classes={self.classes}: {self.folder / 'train'} lacks {', '.join(absent[:5])}.")
        return wanted

    def _require(self) -> None:
        for split in ("train", "val"):
            if not (self.folder / split).is_dir():
                self.require(self.folder / f"ILSVRC2012_img_{split}.tar")
                self._unpack(split)

    def _unpack(self, split: str) -> None:
        from torchvision.datasets import ImageNet

        self.require(self.folder / "ILSVRC2012_devkit_t12.tar.gz")
        ImageNet(self.folder, split=split)


def _pictures(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.suffix in (".JPEG", ".jpeg", ".jpg"))
