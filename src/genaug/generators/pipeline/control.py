"""What a ControlNet is shown of the source: edges, depth, or the outlines of its boxes."""

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from genaug.core.errors import boundary
from genaug.data.sample import Sample
from genaug.generators.labelling.finish import scaled
from genaug.generators.labelling.pixel_boxes import scaled_boxes

if TYPE_CHECKING:
    from genaug.generators.pipeline.config import Pipeline


def control_picture(source: Sample, config: "Pipeline", size: tuple[int, int]) -> Image.Image:
    """The condition of one image: RGB of ``size`` (width, height), white on black."""
    picture = scaled(source.open(), size)
    if config.control.kind == "boxes":
        return _box_outlines(source, size)
    if config.control.kind == "depth":
        with boundary(f"generator.control.depth_path={config.control.depth_path} cannot estimate depth"):
            return _depth(config.control.depth_path)(picture)["depth"].convert("RGB")
    with boundary("generator.control.kind=canny needs OpenCV", "Install it with pip install 'genaug[control]'."):
        import cv2

        edges = cv2.Canny(np.asarray(picture.convert("L")), config.control.low, config.control.high)
    return Image.fromarray(edges).convert("RGB")


def _box_outlines(source: Sample, size: tuple[int, int]) -> Image.Image:
    picture = Image.new("RGB", size)
    boxes = scaled_boxes(source, *size)
    draw = ImageDraw.Draw(picture)
    for x1, y1, x2, y2 in boxes.xyxy.tolist() if boxes is not None else ():
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline="white", width=max(size[0] // 128, 1))
    return picture


@functools.lru_cache(maxsize=1)
def _depth(path: str) -> Any:
    from transformers import pipeline

    return pipeline("depth-estimation", model=path)
