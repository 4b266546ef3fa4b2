"""Whatever bytes an image file holds: a picture, or one sentence, and never another error."""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.core.store import Store, pixel_hash
from genaug.data.sources.image_folder import ImageFolder

few = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
PIXELS = np.random.default_rng(0).integers(0, 255, (9, 11, 3), dtype=np.uint8)


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - PIXELS)]} if kind in ("GIF", "TIFF") else {}
    Image.fromarray(PIXELS).save(stream, kind, **frames)
    return stream.getvalue()


WHOLE = {kind: encoded(kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM")}
changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6)


def changed(data: bytes, bytes_: list[tuple[float, int]], kept: float) -> bytes:
    """The first part of a file, with some of its bytes replaced."""
    found = bytearray(data)
    for place, value in bytes_:
        found[int(place * len(found))] = value
    return bytes(found[: int(kept * len(found))])


damaged = st.one_of(
    st.binary(max_size=200),
    st.builds(changed, st.sampled_from(list(WHOLE.values())), changes, st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.1, 0.0])),
)


@few
@given(damaged, st.sampled_from([".png", ".jpg", ".gif", ".tif", ".bmp", ".webp"]), st.booleans())
def test_any_bytes_of_an_image_of_ones_own(data, ending, skips):
    with tempfile.TemporaryDirectory() as name:
        for number, place in enumerate(("a/0", "a/1", "a/2", "a/3", "b/0", "b/1", "b/2", "b/3")):
            path = Path(name) / f"{place}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.roll(PIXELS, number)).save(path)
        (Path(name) / f"a/9{ending}").write_bytes(data)
        with contextlib.suppress(GenaugError):
            found = ImageFolder(root=name, seed=0, skip_corrupt=skips).load()
            for sample in (*found.train, *found.val, *found.test):
                assert sample.open().mode == "RGB"


@few
@given(st.one_of(st.binary(max_size=200), changes))
def test_any_bytes_of_an_image_of_the_store(change):
    with tempfile.TemporaryDirectory() as name:
        store, image = Store(Path(name)), Image.fromarray(PIXELS)
        about = store.put_image("00000000000000aa", image, {"label": {"a": 1.0}})
        path = store.image_path("00000000000000aa")
        path.write_bytes(change if isinstance(change, bytes) else changed(path.read_bytes(), change, 1.0))
        with contextlib.suppress(GenaugError):
            found = store.about_image("00000000000000aa")
            assert pixel_hash(Image.open(path)) == pixel_hash(image) and found.keys() == about.keys()
