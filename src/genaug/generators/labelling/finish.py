"""From an edited picture to a finished image: its size, the source's pixels put back, the detector's look, its labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from genaug.data.detections import Detections
from genaug.data.sample import Sample
from genaug.generators.base import Generated, Variant
from genaug.generators.labelling.decisions import Verdict, audit_rows, decide, paste, paste_weights
from genaug.generators.labelling.pixel_boxes import box_pixels, scaled_boxes

if TYPE_CHECKING:
    from genaug.generators.sdedit.config import EditsSource

Look = Callable[[str, np.ndarray], Detections]


@dataclass(slots=True)
class Finish:
    """What becomes of the edits of one run."""

    config: "EditsSource"
    class_names: Sequence[str]
    look: Look | None = None
    """The audit's detector."""

    def image(self, variant: Variant, picture: Image.Image, editable: np.ndarray, about: dict[str, Any]) -> Generated:
        """The finished image.

        Args:
            picture: the edited source at the size at which it was made, without padding.
            editable: bool [h, w] of it: where it may differ from the source.
            about: columns for the manifest.
        """
        source = variant.source
        size = self._size(picture, source)
        picture = scaled(picture, size)
        boxes = scaled_boxes(source, *size)
        if self.config.collage is not None:
            from genaug.generators.collage.compose import composed

            original = scaled(source.open(), size)
            picture, facts = composed(self.config.collage, original, picture, variant.fingerprint)
            about |= facts
        if boxes is None or self.config.label_policy == "copy":
            return Generated(variant=variant, image=picture, boxes=boxes, about=about)
        width, height = size
        known = np.asarray(Image.fromarray(~editable).resize(size, Image.Resampling.NEAREST)).astype(np.float32)
        original = np.asarray(scaled(source.open(), size))
        kept = box_pixels(boxes, width, height)
        labels = self.config.labels
        inside = kept if labels.paste_region == "boxes" else np.ones_like(kept)
        weights = paste_weights(known, inside, labels.paste_back, kept, self.config.mask_dilation)
        generated = np.asarray(picture)
        found = None
        if self.look is not None:
            found = self.look(variant.fingerprint, paste(generated, original, weights))
            about["audit"] = audit_rows(found, self.class_names)
        verdict: Verdict = decide(
            generated, original, known, weights, boxes, found, labels, self.config.audit, margin=0
        )
        return Generated(
            variant=variant,
            image=Image.fromarray(verdict.pixels),
            boxes=verdict.boxes,
            about={**about, **verdict.about},
            rejected=verdict.rejected,
        )

    def _size(self, picture: Image.Image, source: Sample) -> tuple[int, int]:
        wanted = self.config.save_size
        if wanted == "source":
            return source.open().size
        if wanted is None:
            return picture.size
        scale = wanted / max(picture.size)
        return max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)


def scaled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at this size; the very same where nothing is scaled."""
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)
