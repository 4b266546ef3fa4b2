"""``filter=aesthetic``: how people would rate an image, by a head on CLIP ViT-L/14's image embedding (LAION's predictors)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from genaug.core.errors import GenaugError, boundary
from genaug.core.fields import bounded
from genaug.core.identity import CONTENT
from genaug.core.registry import component
from genaug.core.store import Store
from genaug.data.sample import Dataset, SyntheticSample
from genaug.evaluation.filters import BATCH, THRESHOLD, Filter
from genaug.priors.hub import check_model

if TYPE_CHECKING:
    from torch import nn

SECOND = (
    "sac+logos+ava1-l14-linearMSE.pth (3.7 MB) from https://github.com/christophschuhmann/improved-aesthetic-predictor"
)
FIRST = "sa_0_4_vit_l_14_linear.pth (4 kB) from https://github.com/LAION-AI/aesthetic-predictor"
PLACES: dict[tuple[int, ...], bool] = {(0, 2, 4, 6, 7): False, (0, 3, 6, 9, 11): True}
"""Places of the five linear layers in the second predictor's file, between dropouts, and whether ReLUs stand there, too."""


@component("filter", "aesthetic")
@dataclass(kw_only=True, slots=True)
class Aesthetic(Filter):
    """Keeps images that a predictor of ratings finds good enough. It reads neither labels nor names, and was trained on
    paintings and photographs: on microscope images and the like its ratings mean nothing."""

    path: str = field(default="openai/clip-vit-large-patch14", metadata=CONTENT)
    """Folder or Hub id of the CLIP model in transformers' layout whose embedding the head reads."""
    head: str = field(default="sac+logos+ava1-l14-linearMSE.pth", metadata=CONTENT)
    """File of the head's weights (.pth or .safetensors): LAION's first predictor (one linear layer) or its second (five)."""
    min_rating: float = bounded(5.0, -100, 100, metadata=THRESHOLD)
    """Least rating; people gave 1 to 10. LAION's own subsets begin at 5, 6 and 6.5."""

    def check(self, task: str) -> None:
        Filter.check(self, task)
        if not Path(self.head).expanduser().is_file():
            raise GenaugError(
                f"filter.head={self.head} is no file. Download {SECOND}, or {FIRST}, and write filter.head=FILE."
            )
        check_model("filter.path", self.path)

    def score(
        self, samples: Sequence[SyntheticSample], dataset: Dataset, store: Store, device: str = "cpu"
    ) -> list[float]:
        import torch
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        with boundary(
            f"filter.path={self.path} cannot be loaded",
            "Write the folder of CLIP ViT-L/14 in transformers' layout (openai/clip-vit-large-patch14).",
        ):
            model = CLIPVisionModelWithProjection.from_pretrained(self.path).eval()
            processor = CLIPImageProcessor.from_pretrained(self.path)
        head = read_head(self.head, model.config.projection_dim)
        model.to(device)  # type: ignore[arg-type]
        head.to(device)
        ratings: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(samples), BATCH):
                images = [sample.open() for sample in samples[start : start + BATCH]]
                pixels = processor(images=images, return_tensors="pt").to(device)
                embedded = torch.nn.functional.normalize(model(**pixels).image_embeds, dim=1)
                ratings += head(embedded).flatten().tolist()
        return ratings

    def keeps(self, score: float) -> bool:
        return score >= self.min_rating


def read_head(path: str, width: int) -> "nn.Sequential":
    """The head, from CLIP's embedding [b, width] of length 1 to a rating [b, 1].

    Raises:
        GenaugError: for a file of another kind or for another embedding.
    """
    import torch
    from safetensors.torch import load_file
    from torch import nn

    with boundary(f"filter.head={path} cannot be read as weights", f"Download it again: {SECOND}, or {FIRST}."):
        file = Path(path).expanduser()
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        weights = {name: value for name, value in state.items() if name.endswith("weight")}
        places = tuple(
            sorted(int(found[1]) for name in weights if (found := re.fullmatch(r"layers\.(\d+)\.weight", name)))
        )
    names = ["weight"] if list(weights) == ["weight"] else [f"layers.{place}.weight" for place in places]
    shapes = [tuple(weights[name].shape) for name in names]
    widths = [width, *(columns for _, columns in shapes[1:]), 1]
    fits = bool(names) and shapes == list(zip(widths[1:], widths, strict=False))
    if not fits or (len(names) > 1 and places not in PLACES):
        raise GenaugError(
            f"filter.head={path} is no head of LAION's for embeddings of {width} numbers: it has "
            f"{', '.join(f'{name} {list(value.shape)}' for name, value in state.items())}. Download {SECOND}, or {FIRST}."
        )
    layers: list[nn.Module] = []
    for name, (rows, columns) in zip(names, shapes, strict=True):
        layer = nn.Linear(columns, rows)
        layer.load_state_dict({"weight": state[name], "bias": state[name.replace("weight", "bias")]})
        layers += [nn.ReLU()] if layers and PLACES[places] else []
        layers.append(layer)
    return nn.Sequential(*layers).eval()
