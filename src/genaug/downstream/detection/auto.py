"""Which detector of transformers ``downstream.architecture=auto`` loads, and what of it learns."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, count
from genaug.core.files import read_json
from genaug.core.identity import content_by, folder_digest
from genaug.core.registry import section
from genaug.downstream.base import MOST_SIDE
from genaug.priors.hub import check_other, other_folder

FAMILIES = {
    "rt_detr": "4.42",
    "rt_detr_v2": "4.49",
    "d_fine": "4.52",
    "lw_detr": "5.0",
    "deimv2": "5.7",
    "rf_detr": "5.9",
}
"""``model_type`` of each family to the version of transformers that brings it."""
KEY, INSTEAD = "downstream.auto.path", "another folder or id, or downstream=faster_rcnn"
FILES = ("*.json", "*.safetensors")


@section("downstream.auto", "downstream/detector/auto")
@dataclass(kw_only=True, slots=True)
class AutoModel:
    """A detector of transformers with its own losses: RT-DETR (arXiv 2304.08069), RT-DETRv2 (2407.17140), D-FINE (2410.13842),
    LW-DETR (2406.03459), DEIMv2 (2509.20787) or RF-DETR (2511.09554)."""

    path: str = field(default="PekingU/rtdetr_v2_r18vd", metadata=content_by("content"))
    """Folder in transformers' layout (config.json, preprocessor_config.json, safetensors), or the Hub's ``owner/model`` or
    ``owner/model@revision``. The family is the ``model_type`` of its config.json."""
    input_size: int | None = count(None, 16, MOST_SIDE)
    """Side in pixels of the square that the network sees; null is the size of the folder's image processor. Images come at
    ``downstream.image_size`` and are stretched to it, as the processors do."""
    freeze_backbone: bool = False
    """Whether the backbone keeps its weights and statistics."""
    backbone_lr_scale: float = bounded(1.0, 0, 1000, above=True)
    """Backbone's share of the learning rate."""

    def __post_init__(self) -> None:
        if self.freeze_backbone and self.backbone_lr_scale != 1:
            raise GenaugError(
                f"downstream.auto.backbone_lr_scale={self.backbone_lr_scale} means nothing to a frozen backbone. Write "
                "downstream.auto.backbone_lr_scale=1, or downstream.auto.freeze_backbone=false."
            )

    @property
    def name(self) -> str:
        """The last part of the path, without a revision."""
        return self.path.rstrip("/").rpartition("/")[2].partition("@")[0]

    def content(self) -> str:
        """What ``path`` is to an identity: configurations and weights of a folder; a Hub id as it is written."""
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            return self.path
        return folder_digest(folder, (file for pattern in FILES for file in sorted(folder.glob(pattern))))

    def check(self) -> None:
        """Raise ``GenaugError``, without slow imports or downloads, for a path that cannot be a detector's."""
        check_other(KEY, self.path, INSTEAD)
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            family(self.path, folder)
        elif folder.exists():
            raise GenaugError(f"{KEY}={self.path} is a file: write the folder with config.json and the weights.")

    def folder(self) -> Path:
        """Where the files are: the folder itself, or the Hub's in the local cache, downloaded if need be.

        Raises:
            GenaugError: if they can neither be found nor fetched, or belong to no family of ``FAMILIES``.
        """
        folder = other_folder(KEY, self.path, FILES, INSTEAD)
        family(self.path, folder)
        return folder


def family(path: str, folder: Path) -> str:
    """The ``model_type`` of the folder's config.json.

    Raises:
        GenaugError: if it is none of ``FAMILIES``.
    """
    config: Any = read_json(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise GenaugError(
            f"{KEY}={path} has no config.json of transformers with a model_type. Write the folder that save_pretrained or "
            "`hf download` made."
        )
    if config["model_type"] not in FAMILIES:
        what = ", ".join(config.get("architectures") or [config["model_type"]])
        families = ", ".join(f"{name} (transformers {version})" for name, version in FAMILIES.items())
        raise GenaugError(
            f"{KEY}={path} holds {what}, model_type {config['model_type']}, which is no detector that can be trained here. "
            f"Write the folder or Hub id of one of these families: {families}."
        )
    return config["model_type"]
