"""Objects of one training image pasted into another (Ghiasi et al., "Simple Copy-Paste", arXiv 2012.07177, section 3).

Cut out along their masks where the source has some, as whole boxes otherwise. As in the paper a random subset of the objects is
pasted, the source is scaled and mirrored at random, and what the pasted objects cover is taken from the objects below. Ours:
edges are not blurred (the paper's ablation finds no use in it), the scale's range, and a place where what is pasted is in view.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from genaug.core.seeding import choice, uniform

SCALES = (0.5, 1.5)
"""Of the source's pixels, uniform."""
SUBSET_PROB = 0.5
"""With which each object is pasted; one at least."""

Example = tuple[Tensor, Tensor, Tensor]


def copy_paste(
    target: Example,
    target_mask: Tensor | None,
    source: Example,
    source_mask: Tensor | None,
    min_visible: float,
    seed: int,
) -> Example:
    """The target with objects of the source on it.

    Args:
        target: uint8 [3, h, w], boxes float32 [n, 4] and labels int64 [n].
        target_mask: bool [h, w], the pixels of its objects; None where only boxes are known.
        source: as the target, of any size, with one object at least.
        source_mask: as the target's.
        min_visible: share of an object that must stay in sight, in [0, 1]; others lose their box.
        seed: of all that is drawn.

    Returns:
        an example of the target's size; boxes hold what is in sight of each object, the pasted ones last.
    """
    image, boxes, labels = target
    pasted, pasted_boxes, pasted_labels = source
    chosen = torch.tensor([uniform(seed, "paste", i) < SUBSET_PROB for i in range(len(pasted_boxes))])
    if not chosen.any():
        chosen[choice(len(pasted_boxes), seed, "paste one")] = True
    cut = _pixels_of(pasted_boxes[chosen], pasted.shape[-2:], source_mask)  # [k, h', w']
    scale = SCALES[0] + (SCALES[1] - SCALES[0]) * uniform(seed, "paste scale")
    size = [max(round(side * scale), 1) for side in pasted.shape[-2:]]
    pasted = (
        functional.interpolate(pasted[None].float(), size, mode="bilinear", antialias=True)[0].round().to(torch.uint8)
    )
    cut = functional.interpolate(cut[None].float(), size, mode="nearest-exact")[0] > 0
    if uniform(seed, "paste mirror") < 0.5:
        pasted, cut = pasted.flip(-1), cut.flip(-1)
    rows, columns = (torch.nonzero(cut.any(0).any(dim)).flatten() for dim in (1, 0))
    if not len(rows):  # smaller than a pixel by now
        return target
    layer, covered = torch.zeros_like(image), torch.zeros(len(cut), *image.shape[-2:], dtype=torch.bool)
    spans = []
    for axis, found in enumerate((rows, columns)):
        low, high, room = int(found[0]), int(found[-1]) + 1, image.shape[1 + axis]
        free = room - (high - low)  # negative: only a part fits
        start = int(np.floor(uniform(seed, "paste place", axis) * (abs(free) + 1)))
        start = start if free >= 0 else -start
        spans.append((max(start, 0), min(start + high - low, room), low - start))
    (top, bottom, dy), (left, right, dx) = spans
    covered[:, top:bottom, left:right] = cut[:, top + dy : bottom + dy, left + dx : right + dx]
    layer[:, top:bottom, left:right] = pasted[:, top + dy : bottom + dy, left + dx : right + dx]
    above = covered.any(0)
    below = _pixels_of(boxes, image.shape[-2:], target_mask)
    left_over = below & ~above
    kept = left_over.sum((1, 2)) >= min_visible * below.sum((1, 2)).clamp(min=1)
    kept &= left_over.any(2).any(1)
    touched = (below & above).any(2).any(1)
    seen = torch.where(touched[:, None], _bounds(left_over), boxes)
    in_sight = covered.sum((1, 2)) >= min_visible * cut.sum((1, 2)).clamp(min=1)
    in_sight &= covered.any(2).any(1)
    return (
        torch.where(above, layer, image),
        torch.cat([seen[kept], _bounds(covered)[in_sight]]),
        torch.cat([labels[kept], pasted_labels[chosen][in_sight]]),
    )


def _pixels_of(boxes: Tensor, size: torch.Size, mask: Tensor | None) -> Tensor:
    """bool [n, h, w]: each box's pixels of the mask, or all of them where the mask has none there."""
    height, width = size
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    across = (x >= boxes[:, :1]) & (x < boxes[:, 2:3])
    down = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:4])
    inside = down[:, :, None] & across[:, None, :]
    if mask is None:
        return inside
    cut = inside & mask
    return torch.where(cut.any(2).any(1)[:, None, None], cut, inside)


def _bounds(pixels: Tensor) -> Tensor:
    """float32 [n, 4]: the box of each mask's pixels; of an empty one a box without area."""
    height, width = pixels.shape[-2:]
    across, down = pixels.any(1), pixels.any(2)
    x, y = torch.arange(width), torch.arange(height)
    first_x, last_x = torch.where(across, x, width).amin(1), torch.where(across, x + 1, 0).amax(1)
    first_y, last_y = torch.where(down, y, height).amin(1), torch.where(down, y + 1, 0).amax(1)
    return torch.stack([first_x, first_y, last_x, last_y], dim=1).float()
