"""The gallery page: read as text, and worked in a browser where there is one."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from genaug.data.pool import Pool
from genaug.data.sample import Boxes, Dataset, Sample, SyntheticSample
from genaug.drawing.contact_sheet import caption, contact_sheet, label_text
from genaug.drawing.gallery_page import gallery_page

PIXELS = np.full((32, 32, 3), 200, dtype=np.uint8)
NAMES = ("<cat>", "dog")


def real(i, label):
    return Sample(id=f"train/{i}.png", digest=str(i), image=PIXELS, label={label: 1.0})


def made(source, index, label, **about):
    where = {"digest": f"{source.id}{index}", "image": PIXELS, "source_id": source.id, "index": index}
    return SyntheticSample(id=f"{source.id}/{index}", label=label, about={"rejected": None, **about}, **where)


@pytest.fixture
def pool():
    cat, dog = real(0, 0), real(1, 1)
    samples = (
        made(cat, 0, {0: 1.0}, t0=0.25),
        made(cat, 1, {0: 0.7, 1: 0.3}, lam=0.7, partner_id=dog.id),
        made(dog, 0, {1: 1.0}, sigma=0.5, rejected="blank"),
    )
    dataset = Dataset(name="pets", task="classification", class_names=NAMES, train=(cat, dog), val=(), test=())
    return Pool(fingerprint="abc", folder=Path("abc"), samples=samples), dataset


def test_captions_say_what_was_drawn_and_why_an_image_is_rejected(pool):
    samples = pool[0].samples
    assert [caption(sample) for sample in samples] == [
        "t0 0.25",
        "lambda 0.7, with 1.png",
        "sigma 0.5, rejected: blank",
    ]
    assert [label_text(sample, NAMES) for sample in samples] == ["<cat>", "0.70 <cat> + 0.30 dog", "dog"]
    boxes = Boxes(xyxy=np.zeros((4, 4)), labels=np.array([1, 1, 0, 0]), crowd=np.arange(4) == 3)
    assert label_text(Sample(id="x", digest="x", image=PIXELS, boxes=boxes), NAMES) == "2 dog, 1 <cat>"
    assert contact_sheet(*pool).height > 2 * 80


def test_the_page_holds_everything_and_needs_no_network(pool):
    page = gallery_page([("pets: abc", *pool)])
    assert page.count("<figure") == 6  # two sources, three variants, one second source
    for words in ("t0 0.25", "0.70 &lt;cat&gt; + 0.30 dog", "second source: dog", "rejected: blank", "real image: dog"):
        assert words in page
    assert "<cat>" not in page and re.search(r"https?:|src=\"(?!data:)", page) is None
    assert page.count("accepted") == 2 and page.count("rejected: blank") == 1


def test_boxes_are_drawn_in_the_page():
    boxes = Boxes(xyxy=np.array([[4, 4, 20, 20]], np.float32), labels=np.array([0]), crowd=np.array([False]))
    source = Sample(id="a", digest="a", image=PIXELS, boxes=boxes)
    variant = SyntheticSample(
        id="b", digest="b", image=PIXELS, boxes=boxes, source_id="a", index=0, about={"rejected": None}
    )
    dataset = Dataset(name="x", task="detection", class_names=("cat",), train=(source,), val=(), test=())
    page = gallery_page([("x", Pool(fingerprint="f", folder=Path("f"), samples=(variant,)), dataset)])
    plain = gallery_page([("x", Pool(fingerprint="f", folder=Path("f"), samples=()), dataset)])
    assert "variant 0: 1 cat" in page and "<figure" not in plain
    pictures = set(re.findall(r"base64,([^\"]+)", page))
    assert len(pictures) == 1  # the same pixels with the same box
    assert next(iter(pictures)) not in gallery_page_without_boxes(dataset)


def gallery_page_without_boxes(dataset):
    labelled = Sample(id="a", digest="a", image=PIXELS, label={0: 1.0})
    variant = made(labelled, 0, {0: 1.0})
    other = Dataset(name="x", task="classification", class_names=("cat",), train=(labelled,), val=(), test=())
    return gallery_page([("x", Pool(fingerprint="f", folder=Path("f"), samples=(variant,)), other)])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_keys_filter_and_zoom_in_a_browser(pool, tmp_path):
    keys = """<script>
    const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    const say = [], note = () => say.push(document.getElementById("count").textContent);
    note(); press("r"); note(); press("r"); press("c"); note(); press("c"); note();
    document.querySelectorAll(".row:not(.hidden) figure")[0].click();
    say.push(document.getElementById("zoom").className); press("ArrowRight");
    say.push(document.querySelector("#zoom p").textContent.slice(0, 9)); press("Escape");
    say.push(document.getElementById("zoom").className + "closed");
    say.push([...document.querySelectorAll("figure")].indexOf(document.activeElement));
    document.title = say.join("|");
    </script></body>"""
    path = tmp_path / "gallery.html"
    path.write_text(gallery_page([("pets", *pool)]).replace("</body>", keys))
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
        "--dump-dom",
    ]
    shown = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120).stdout
    title = re.search("<title>(.*?)</title>", shown)
    assert title and title[1] == "6 pictures|5 pictures|4 pictures|6 pictures|open|variant 0|closed|1"
