"""The report page: one file that reads well everywhere, and holds what the tables hold."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genaug.drawing.charts import Point, Series, line_chart, scatter_chart, ticks
from genaug.tables.arrangement import collect
from genaug.tables.report import quality_view, write_report
from genaug.tables.spec import read_spec
from tests.tables.finished_cells import finish_all

POOL = "0123456789abcdef"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def write_pool(outputs: Path) -> None:
    """Two variants of ten real digits in the format of ``data.pool``."""
    from genaug.composition import compose_typed

    dataset = compose_typed(["dataset.shots=1", "seed=0"]).dataset.load()
    folder = outputs / "store" / "pools" / POOL
    rows = []
    for i, source in enumerate(dataset.train):
        for j in range(2):
            name = f"{j:03d}/{i:016x}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(2 * i + j).integers(0, 60, size=(32, 32, 3))
            Image.fromarray((np.asarray(source.open()) // 2 + noise).astype(np.uint8)).save(folder / name)
            label = {dataset.class_names[source.class_index]: 1.0}
            rows.append({"file_name": name, "fingerprint": f"{i}-{j}", "source_id": source.id, "index": j, "t0": 0.5,
                         "generator": "real_guidance", "label": label, "rejected": None, "seconds": 0.1})  # fmt: skip
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_audits(outputs: Path) -> None:
    """What ``genaug quality`` and ``genaug leaks`` leave behind."""
    measures = {
        "kid": {"value": 0.012, "low": 0.01, "high": 0.014},
        "fid": {"value": 31.2},
        "precision": {"value": 0.71},
    }
    (outputs / "quality").mkdir(parents=True)
    (outputs / "quality" / f"{POOL}.json").write_text(
        json.dumps({"generator": "real_guidance", "features": "test", "num_synthetic": 20, "measures": measures})
    )
    folder = outputs / "leaks" / POOL
    folder.mkdir(parents=True)
    for side in ("synthetic", "real"):
        Image.new("RGB", (32, 32), "red").save(folder / f"00_{side}.png")
    sides = {side: {"id": f"{side}/1", "file": f"00_{side}.png"} for side in ("synthetic", "real")}
    pair = {**sides, "direction": "test", "similarity": 0.97}
    (folder / "leaks.json").write_text(
        json.dumps(
            {
                "summary": ["Synthetic against test: nothing."],
                "pairs": [pair],
                "unusual_share": 0.3,
                "expected_share": 0.01,
            }
        )
    )


@pytest.fixture
def page(project: Path, sweep_of) -> Path:
    outputs = project / "outputs"
    write_pool(outputs)
    write_audits(outputs)
    path = outputs / "report.html"
    write_report([collect(finish_all(sweep_of()), read_spec("paper/item"))], outputs, path)
    return path


class Links(HTMLParser):
    """Everything that a browser would fetch, and the ids and fragments of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.fragments: list[str] = []
        self.tags: list[str] = []
        self.images_without_alt = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {key: value or "" for key, value in attrs}
        if "src" in values:
            self.fetched.append(values["src"])
        if tag == "link":
            self.fetched.append(values["href"])
        if tag == "img" and not values.get("alt"):
            self.images_without_alt += 1
        if "id" in values:
            self.ids.append(values["id"])
        if values.get("href", "").startswith("#"):
            self.fragments.append(values["href"][1:])


def test_the_page_is_self_contained_and_its_pictures_decode(page: Path) -> None:
    links = Links()
    links.feed(page.read_text())
    assert links.fetched and all(address.startswith("data:") for address in links.fetched)
    assert "script" not in links.tags and "url(" not in page.read_text()
    assert links.images_without_alt == 0
    assert set(links.fragments) <= set(links.ids) and len(links.ids) == len(set(links.ids))
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page.read_text())
    assert len(pictures) == 10 * 3 + 2  # ten sources with two variants, one pair of the audit
    for picture in pictures:
        assert Image.open(BytesIO(base64.b64decode(picture))).size == (32, 32)


def test_the_page_says_what_the_table_says(page: Path) -> None:
    text = page.read_text()
    for wanted in (
        "A small table",
        "Real Guidance",
        "Paper, Fig. 1",
        "underpowered",
        "Steps: 50 instead of 1000.",
        "t0 0.5",
        "0.012 [0.01, 0.014]",
        "Synthetic against test: nothing.",
        "the best method with generated images is Real Guidance",
        "the leak audit finds 30.0% of the images",
        "genaug sweep experiment=paper/item",
    ):
        assert wanted in text
    assert text.count('class="chart"') == 2  # accuracy over shots, cost against gain


def test_ticks_are_round_and_cover_the_data() -> None:
    assert ticks(0.503, 0.748) == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75]
    assert ticks(3.0, 3.0)[0] <= 3.0 <= ticks(3.0, 3.0)[-1]


def test_charts_of_one_point_and_of_no_cost_are_drawn() -> None:
    one = [Series(name="a", points=[Point(x=1, y=0.5)])]
    assert "circle" in line_chart(one, "x", "y")
    assert "circle" in scatter_chart([Series(name="a", points=[Point(x=0, y=0)])], "x", "y")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize(("width", "height"), [(360, 800), (1200, 900)])
def test_a_browser_shows_the_page_without_error_or_sideways_scrolling(page: Path, width: int, height: int) -> None:
    probe = page.with_name("probe.html")
    # the page itself has no script; the probe is the page inside a frame of a phone's width, and a script that measures it
    probe.write_text(
        f'<iframe id="f" src="report.html" style="width:{width}px;height:{height}px;border:0"></iframe><pre id="out"></pre>'
        "<script>f.onload = () => { const d = f.contentDocument, images = [...d.images]; out.textContent = JSON.stringify({"
        "scroll: d.documentElement.scrollWidth, view: d.documentElement.clientWidth, images: images.length, "
        "broken: images.filter(i => !i.complete || !i.naturalWidth).length, "
        "charts: d.querySelectorAll('svg.chart').length }) }</script>"
    )
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr"),
        *(f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=3000", "--dump-dom", probe.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="out">(\{.*?\})</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    measured = json.loads(found.group(1))
    assert measured["scroll"] <= measured["view"]
    assert (measured["broken"], measured["images"], measured["charts"]) == (0, 32, 2)
    assert "CONSOLE" not in done.stderr


def test_a_measure_is_correlated_with_the_metric_over_runs_unless_one_of_them_never_changes(project, sweep_of):
    table, outputs = collect(finish_all(sweep_of()), read_spec("paper/item")), project / "outputs"
    table.results = table.results[:4]
    (outputs / "quality").mkdir(parents=True)
    for i, result in enumerate(table.results):
        result["pool"], result["metrics"]["test/accuracy_macro"] = f"{i:016x}", 0.1 * i
        about = {"generator": "g", "num_synthetic": 1, "features": "pixels", "measures": {"kid": {"value": -i}}}
        (outputs / "quality" / f"{i:016x}.json").write_text(json.dumps(about))
    shown = quality_view([table], outputs)
    assert shown is not None
    assert shown["lines"][1:] == ["paper/item: kid against test/accuracy_macro, Spearman -1.00 (n=4)."]
    for result in table.results:
        result["metrics"]["test/accuracy_macro"] = 1.0
    shown = quality_view([table], outputs)
    assert shown is not None and len(shown["lines"]) == 1
