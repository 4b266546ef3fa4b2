"""A detector of transformers behind the interface of torchvision's: images and boxes in pixels in, losses or detections out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_convert
from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from genaug.core.errors import GenaugError, boundary
from genaug.downstream.detection.auto import FAMILIES, KEY, AutoModel, family

if TYPE_CHECKING:
    from genaug.downstream.detection.config import Detector

CLASS_LAYERS = ("class_embed", "score_head")
"""Parts of the names of layers whose shape depends on the number of classes, in every family."""


class AutoNetwork(nn.Module):
    """In training ``(images, targets) -> {"loss": scalar}``, otherwise ``images -> detections``, as torchvision's detectors.

    Images are float [3, h, w] in [0, 1] of any size; each is stretched to the square that the network sees. Boxes are
    left, top, right, bottom in pixels of the image given, never of that square.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, processor: Any, config: "Detector"):
        super().__init__()
        assert config.auto is not None
        self.model = model
        self.side = config.auto.input_size or _side(processor, config.auto)
        self.min_score, self.max_detections = config.min_score, config.max_detections
        self.frozen = config.auto.freeze_backbone
        mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        if self.frozen:
            self.backbone.requires_grad_(False)
        self.train()

    @property
    def dropped(self) -> list[str]:
        """Names of the weights that were left behind, as the data has another number of classes."""
        return self.model.dropped  # type: ignore[return-value]

    @property
    def backbone(self) -> nn.Module:
        """What makes the first features, pretrained on images alone in the published models."""
        from transformers.backbone_utils import BackboneMixin

        return next(part for part in self.model.modules() if isinstance(part, BackboneMixin))

    def train(self, mode: bool = True) -> "AutoNetwork":
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        pixels = (torch.stack([self.stretched(image) for image in images]) - self.mean) / self.std
        if targets is None:
            found = self.model(pixel_values=pixels)
            sizes = [(image.shape[-2], image.shape[-1]) for image in images]
            return self.detections(found.logits.float(), found.pred_boxes.float(), sizes)
        labels = []
        for image, target in zip(images, targets, strict=True):
            height, width = image.shape[-2:]
            scale = target["boxes"].new_tensor([width, height, width, height])
            boxes = box_convert(target["boxes"] / scale, "xyxy", "cxcywh")
            labels.append({"class_labels": target["labels"], "boxes": boxes})
        return {"loss": self.model(pixel_values=pixels, labels=labels).loss}

    def stretched(self, image: Tensor) -> Tensor:
        """[3, side, side]; one of that size already stays as it is."""
        if image.shape[-2:] == (self.side, self.side):
            return image
        size = (self.side, self.side)
        return functional.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]

    def detections(self, logits: Tensor, boxes: Tensor, sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Best first: each pair of query and class is a detection, with the sigmoid of its logit as the score.

        Args:
            logits: [b, queries, classes].
            boxes: [b, queries, 4], centre x and y, width, height as shares of the image.
            sizes: height and width of each image in pixels.
        """
        num_classes = logits.shape[2]
        scores, places = logits.sigmoid().flatten(1).topk(min(self.max_detections, logits[0].numel()), dim=1)
        results = []
        for row, (height, width) in enumerate(sizes):
            kept = scores[row] > self.min_score
            corners = box_convert(boxes[row, places[row, kept] // num_classes], "cxcywh", "xyxy").clamp(0, 1)
            scale = boxes.new_tensor([width, height, width, height])
            results.append(
                {"boxes": corners * scale, "scores": scores[row, kept], "labels": places[row, kept] % num_classes}
            )
        return results


def build_auto(config: "Detector", num_classes: int) -> AutoNetwork:
    """The detector of ``downstream.auto.path`` for ``num_classes``; only safetensors are read, and no code of the folder.

    Layers whose shape depends on the number of classes start from random weights where it is not that of the weights.

    Raises:
        GenaugError: if the family, its weights or its image processor cannot be had, or the weights are another network's.
    """
    auto = config.auto
    assert auto is not None
    folder = auto.folder()
    model_type = family(auto.path, folder)
    if model_type not in CONFIG_MAPPING:
        raise GenaugError(
            f"{KEY}={auto.path} is a {model_type}, which came with transformers {FAMILIES[model_type]}; here is "
            f"{transformers.__version__}: pip install --upgrade transformers."
        )
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()  # what does not fit is said here
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with boundary(f"{KEY}={auto.path} cannot be read", "Download it again, or write another folder or Hub id."):
        described = AutoConfig.from_pretrained(folder, **local)
        processor = AutoImageProcessor.from_pretrained(folder, **local)
    described.num_labels = num_classes
    network = AutoNetwork(_model(config, folder, described, local), processor, config)
    if auto.input_size is not None:
        with boundary(
            f"downstream.auto.input_size={auto.input_size} does not suit {KEY}={auto.path}",
            "Write a multiple of 32, or downstream.auto.input_size=null for the processor's own size.",
        ):
            network.eval()
            with torch.no_grad():
                network([torch.zeros(3, network.side, network.side)])
            network.train()
    return network


def _side(processor: Any, auto: AutoModel) -> int:
    """Pixels of the square to which the image processor stretches every image."""
    height, width = processor.size.get("height"), processor.size.get("width")
    if height is None or height != width:
        raise GenaugError(
            f"{KEY}={auto.path}: its image processor makes images of {dict(processor.size)}, no squares. Write the side of a "
            "square, e.g. downstream.auto.input_size=640."
        )
    return int(height)


def _model(config: "Detector", folder: Path, described: Any, local: dict[str, Any]) -> nn.Module:
    """The model with the folder's weights, or random ones for ``downstream.weights=none``."""
    assert config.auto is not None
    path = f"{KEY}={config.auto.path}"
    if config.weights == "none":
        with boundary(f"{path}: no network can be built by its config.json", "Write another folder or Hub id."):
            model = AutoModelForObjectDetection.from_config(described, trust_remote_code=False)
            model.dropped = []
            return model
    if not any(folder.glob("*.safetensors")):
        raise GenaugError(
            f"{path} has no weights: there is no .safetensors file in {folder}, and other files are not read. "
            "Download or convert them, or write downstream.weights=none to start from random weights."
        )
    with boundary(f"{path}: the weights cannot be loaded", "Download them again, or write downstream.weights=none."):
        model, about = AutoModelForObjectDetection.from_pretrained(
            folder,
            config=described,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            output_loading_info=True,
            **local,
        )
    dropped = sorted(name for name, *_ in about["mismatched_keys"])
    wrong = sorted(about["missing_keys"]) + [name for name in dropped if not any(part in name for part in CLASS_LAYERS)]
    if wrong:
        raise GenaugError(
            f"{path}: {len(wrong)} of {len(model.state_dict())} tensors of this {described.model_type} are not in its weights "
            f"or of another shape, e.g. {wrong[0]}: they are of another network. Write the folder or Hub id of a detector."
        )
    model.dropped = dropped
    return model
