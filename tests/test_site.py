"""The documentation site builds without a warning, asks no other server for anything, and leaves no preset out."""

import html
import json
import os
import re
from pathlib import Path

import pytest

from genaug.core.paths import presets
from tests.conftest import ROOT, STARTER


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built from the sources as they are."""
    folder = tmp_path_factory.mktemp("site")
    words = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"}
    code, said = STARTER.run(words, ROOT, environment)
    assert code == 0, said
    return folder


def test_no_page_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"?(\S+)|<link[^>]+href=\"?(\S+)", page.read_text())
        outside = [address for pair in loaded for address in pair if address.startswith(("http", "//"))]
        assert not outside, f"{page.name}: {outside}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(.?https?:|@import", sheet.read_text()), sheet.name


def test_every_preset_stands_on_its_groups_page_with_its_file(site):
    for group, names in presets().items():
        page = (site / "keys" / f"{group.replace('/', '_')}.html").read_text()
        for name in names:
            assert f'id="{group.replace("/", "_")}-{name}"' in page, f"{group}={name}"


def test_a_keys_rule_and_meaning_are_those_of_the_code(site):
    text = html.unescape(re.sub(r"<[^>]+>", " ", (site / "keys" / "mix.html").read_text()))
    assert re.search(r"mix\.alpha\s+0\.5\s+in \[0, 1\]", text)
    needed = html.unescape(re.sub(r"<[^>]+>", " ", (site / "keys" / "dataset.html").read_text()))
    assert re.search(r"dataset\.root\s+\(needed\)", needed)


def test_every_page_beside_the_code_is_on_the_site():
    asked = re.findall(r"made: readme (\S+)", "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md")))
    there = [
        page.parent.relative_to(ROOT / "src" / "genaug").as_posix() for page in ROOT.glob("src/genaug/*/*/README.md")
    ]
    assert sorted(asked) == sorted(there)


def test_recipes_methods_and_records_are_filled_in(site):
    record = json.loads((ROOT / "experiments" / "results" / "demo" / "compare.json").read_text())
    for page, told in {
        "extend": "class Tint",
        "methods/psld": "Data Augmentation as an Inverse Problem",
        "findings": f"{record['entries'][0]['mean']:.3f}",
        "experiments": "fig9_alpha",
        "store": "<svg",
        "python": "probability of a generated image",
    }.items():
        text = (site / f"{page}.html").read_text()
        assert told in re.sub(r"</?span[^>]*>", "", text), page
        assert "<!-- made" not in text, page
