"""Features of images by a chosen backbone, each image's kept in the store under its digest, where later calls read them.

The backbone is always an explicit choice: any timm name with its pretrained weights (``vit_small_patch14_dinov2.lvd142m`` at
paper scale), the same name after ``random:`` (random weights of a fixed seed), or ``pixels`` (no network at all).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genaug.core.errors import GenaugError, boundary
from genaug.core.files import say_damaged, whole
from genaug.core.identity import fingerprint
from genaug.core.store import Store
from genaug.data.sample import Sample

PIXELS = "pixels"
RANDOM = "random:"
PIXEL_SIDE = 16


def features_of(
    samples: Sequence[Sample], backbone: str, store: Path, batch_size: int = 64, device: str | None = None
) -> np.ndarray:
    """float32 [n, d], one row per sample; only images without a row in the store are encoded.

    Args:
        backbone: a timm name, ``random:<timm name>`` or ``pixels``.
        store: root of the store; rows live in ``features/<fingerprint of the backbone>.npz``, which several processes may
            add to at once.
        device: where the backbone runs; None takes a GPU where there is one.
    """
    name = fingerprint(backbone)
    path = store / "features" / f"{name}.npz"
    known = _read(path)
    missing = list({s.digest: s for s in samples if s.digest not in known}.values())
    if missing:
        rows = encode(missing, backbone, batch_size, device)
        made = {sample.digest: row for sample, row in zip(missing, rows, strict=True)}
        with Store(store).lock(f"features-{name}"):
            known = _read(path) | made  # with what other processes added meanwhile
            _publish(path, known)
    return np.stack([known[sample.digest] for sample in samples]).astype(np.float32)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with np.load(path) as rows:
            return dict(rows)
    except Exception as error:  # a damaged zip fails in many ways
        say_damaged(path, str(error))
        return {}


def _publish(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Write so that a reader sees the old file or the whole new one; the caller holds the lock."""
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **rows)  # type: ignore[arg-type]


def encode(samples: Sequence[Sample], backbone: str, batch_size: int = 64, device: str | None = None) -> np.ndarray:
    """Features without the store."""
    if backbone == PIXELS:
        small = [np.asarray(s.open().resize((PIXEL_SIDE, PIXEL_SIDE))).reshape(-1) for s in samples]
        return np.stack(small).astype(np.float32) / 255
    import timm
    import torch
    from timm.data import create_transform, resolve_data_config

    random = backbone.startswith(RANDOM)
    name = backbone.removeprefix(RANDOM)
    if name.split(".")[0] not in timm.list_models():
        raise GenaugError(
            f"There is no backbone {name} in timm. Write a name of timm.list_models(), random:NAME, or pixels."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with boundary(
            f"The weights of {name} cannot be had here",
            f"Choose another backbone: random:{name} has random weights, pixels needs none; neither is comparable with "
            "published numbers.",
        ):
            network = timm.create_model(name, pretrained=not random, num_classes=0)
    network.eval()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    transform = create_transform(**resolve_data_config({}, model=network))
    rows = []
    with torch.inference_mode():
        for first in range(0, len(samples), batch_size):
            batch = torch.stack([transform(s.open()) for s in samples[first : first + batch_size]])  # type: ignore[operator]
            rows.append(network(batch.to(device)).float().cpu().numpy())
    return np.concatenate(rows)


def normalised(features_nd: np.ndarray) -> np.ndarray:
    """Rows of length 1, for cosine similarity."""
    return features_nd / np.maximum(np.linalg.norm(features_nd, axis=1, keepdims=True), 1e-12)
