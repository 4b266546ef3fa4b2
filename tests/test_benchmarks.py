"""A benchmark measures both sides in alternation and refuses those that did not do the same; its table is up to date."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
from packaging.version import Version

from benchmarks import advisories, gpu, tracker_pictures
from benchmarks.__main__ import names
from benchmarks.measure import REPEATS, RESULTS, Different, Side, circumstances, compare, measured, write
from benchmarks.robustness import sentences
from benchmarks.soak_runs import RUNS
from benchmarks.table import PAGE, page, rendered, targets, whole
from benchmarks.wheels import lacking
from genaug.config_source import component_of
from tests.conftest import ROOT


def test_the_tables_of_the_page_are_those_of_the_results():
    text = PAGE.read_text()
    assert text == whole(text), "run python -m benchmarks table"


def test_the_readme_says_of_robustness_what_the_last_measurements_say():
    soak, report = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("soak", "robustness"))
    assert sentences(soak, report) in " ".join((ROOT / "README.md").read_text().split()), (
        "run python -m benchmarks robustness"
    )
    assert soak["different result"] == soak["failed"] == soak["hung"] == soak["damaged stores"] == 0
    assert report["processes"]["images lost or different"] == 0 and not report["corruptions"].get("missed", 0)
    assert report["corruptions"]["healed by the same command"] == report["corruptions"]["corruptions"]


def test_runs_of_every_generator_are_killed():
    presets = {word.partition("=")[2] for words in RUNS.values() for word in words if word.startswith("generator=")}
    killed = {component_of("generator", preset) for preset in presets}
    assert killed == {component_of("generator", path.stem) for path in ROOT.glob("conf/generator/*.yaml")}


def test_both_sides_run_in_alternation_and_at_least_five_times():
    calls = []
    row = compare(
        "counting",
        Side("ours", lambda: calls.append("ours") or sum(range(20_000)), units=2),
        Side("theirs", lambda: calls.append("theirs") or sum(range(200_000))),
        lambda ours, theirs: f"{ours} and {theirs}",
    )
    assert len(calls) == 2 * REPEATS >= 10
    assert calls[:4] == ["ours", "theirs", "theirs", "ours"]  # so that neither always comes second
    assert row.repeats == REPEATS and 5 < row.low <= row.ratio <= row.high and row.ratio > 10
    assert row.same == f"{sum(range(20_000))} and {sum(range(200_000))}"
    assert row.threads >= 1 and "torch" in row.versions and row.hardware and row.date


def test_sides_that_did_not_do_the_same_give_no_row():
    def same(ours: int, theirs: int) -> str:
        raise Different(f"{ours} is not {theirs}")

    with pytest.raises(Different, match="1 is not 2"):
        compare("numbers", Side("ours", lambda: 1), Side("theirs", lambda: 2), same, repeats=1)


def test_after_its_time_a_comparison_repeats_nothing():
    row = compare("late", Side("a", lambda: None), Side("b", lambda: None), lambda *_: "", until=0.0)
    assert row.repeats == 1


def test_rows_are_written_and_become_lines_of_the_table(tmp_path):
    row = compare("work", Side("ours", lambda: None), Side("theirs", lambda: None), lambda *_: "all", target=2.0)
    write("some_work", [row], tmp_path)
    line = rendered(tmp_path).splitlines()[-1]
    assert line.startswith("| work | ours, against theirs | **") and "`python -m benchmarks some_work`" in line
    old = "before\n<!-- made by python -m benchmarks table -->\nold\n<!-- end -->\nafter\n"
    assert page(old, f"{line}\n") == old.replace("old", line)


def test_a_number_that_has_only_a_target_stands_in_the_other_table_with_its_median_and_range(tmp_path):
    write("starting", [measured("`--help`", [0.3, 0.1, 0.2], "s of CPU", "at most 1")], tmp_path)
    machine = circumstances()["hardware"]
    assert targets(tmp_path).splitlines()[-1] == (
        f"| `--help` | **0.2** (0.1 to 0.3) s of CPU | at most 1 | 3, {machine} | `python -m benchmarks starting` |"
    )
    assert len(rendered(tmp_path).splitlines()) == 2


@pytest.mark.slow
def test_the_command_for_a_gpu_works_at_toy_size_in_all_of_its_parts(tmp_path):
    said = []
    assert gpu.measure(gpu.TOY, 5, list(gpu.SHARES), tmp_path, said.append) == [], "\n".join(said)
    with (tmp_path / "gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(gpu.SHARES) and all(float(row["ratio"]) > 0 and row["same"] for row in rows)
    assert sum(gpu.SHARES.values()) < 1  # something is left for loading
    assert {"equality", "sdedit_compiled"} <= {name for name in gpu.SHARES if callable(getattr(gpu.Bench, name))}


def test_a_part_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.Bench, "erasure", lambda bench, until: 1 / 0)
    said = []
    assert gpu.measure(gpu.TOY, 5, ["erasure", "detector"], tmp_path, said.append) == ["erasure"]
    assert any("ZeroDivisionError" in line for line in said) and "detector" in said[-1]


def test_the_wheels_are_those_that_the_image_lacks():
    found = {package.partition("==")[0] for package in lacking()}
    assert {"diffusers", "pytorch-lightning", "hydra-core", "pycocotools"} <= found
    assert not found & {"genaug", "torch", "torchvision", "timm", "transformers", "numpy", "pillow"}


@pytest.mark.parametrize(
    "events, versions, known",
    [
        ([{"introduced": "0"}, {"fixed": "2.10.0"}], [], None),
        ([{"introduced": "0"}, {"fixed": "2.10.1"}], [], "fixed in 2.10.1"),
        ([{"introduced": "2.11"}, {"fixed": "2.12"}], [], None),
        ([{"introduced": "0"}, {"fixed": "2.6"}, {"introduced": "2.9"}, {"fixed": "2.13"}], [], "fixed in 2.13"),
        ([{"introduced": "0"}, {"last_affected": "2.10"}], [], "fixed in no version"),
        ([], ["2.9", "2.10"], "fixed in no version"),
    ],
)
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_an_advisory_is_named_if_it_affects_the_lowest_version(
    tmp_path, capsys, monkeypatch, suffix, events, versions, known
):
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[build-system]\nrequires = ["setuptools>=78"]\n[project]\ndependencies = ["Torch>=2.10,<3", "rich"]\n'
        '[project.optional-dependencies]\nmore = ["torch>=2.11", "ray[data]>=2.52"]\n'
    )
    assert advisories.lowest(project) == {
        name: Version(at) for name, at in (("setuptools", "78"), ("torch", "2.10"), ("ray", "2.52"))
    }
    affected = {"package": {"ecosystem": "PyPI", "name": "torch"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    about = {
        "id": "PYSEC-1",
        "aliases": ["CVE-1"],
        "affected": [affected | {"versions": versions}],
        "modified": "2026-11-01",
    }
    (tmp_path / "vulns" / "torch").mkdir(parents=True)
    (tmp_path / "vulns" / "torch" / f"PYSEC-1.{suffix}").write_text(json.dumps(about))  # which is YAML, too
    monkeypatch.setattr(sys, "argv", ["advisories", str(tmp_path / "vulns"), "--pyproject", str(project)])
    with pytest.raises(SystemExit) as end:
        advisories.main()
    said = capsys.readouterr().out
    assert (
        end.value.code == (known is not None)
        and said.startswith(f"torch 2.10: PYSEC-1, CVE-1, {known}\n") == end.value.code
    )
    assert "of 3 lowest versions; the newest advisory is of 2026-11-01" in said


def test_a_folder_without_advisories_is_no_good_news(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["advisories", str(tmp_path)])
    with pytest.raises(SystemExit, match="1"):
        advisories.main()


def test_every_benchmark_says_what_it_does_and_takes_help():
    listed = subprocess.run([sys.executable, "-m", "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(name in listed.stdout for name in names())
    unknown = subprocess.run([sys.executable, "-m", "benchmarks", "nothing"], cwd=ROOT, capture_output=True, text=True)
    assert unknown.returncode == 1 and "there is no benchmark 'nothing'" in unknown.stderr


@pytest.fixture
def impatient(monkeypatch, tmp_path):
    monkeypatch.setattr(tracker_pictures, "PATIENCE", 1.0)
    return tmp_path


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("-c 'raise SystemExit(\"no such database\")'", "(?s)The server of other ended by itself.*no such database"),
        (
            "-c 'import time; print(\"still busy\", flush=True); time.sleep(60)'",
            "(?s)does not answer within 1 s.*still busy",
        ),
    ],
)
def test_a_tracker_whose_server_does_not_answer_is_named_with_what_it_said(impatient, monkeypatch, server, said):
    monkeypatch.setitem(tracker_pictures.TRACKERS, "other", tracker_pictures.Tracker(server, "/"))
    with pytest.raises(SystemExit, match=said), tracker_pictures.served("other", impatient, impatient):
        pass


def test_a_browser_that_opens_no_page_is_ended_and_named(impatient, monkeypatch):
    program = impatient / "chromium"
    program.write_text('#!/bin/sh\necho $$ > "$(dirname "$0")/number"\necho no display\nsleep 60\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{impatient}:/usr/bin:/bin")
    with pytest.raises(SystemExit, match=r"(?s)Chromium does not open a page within 1 s.*no display"):
        with tracker_pictures.chromium(impatient):
            pass
    with pytest.raises(ProcessLookupError):
        os.kill(int((impatient / "number").read_text()), 0)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_page_without_the_runs_gives_no_picture_but_what_it_shows(monkeypatch, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<p>accuracy_macro cross_entropy 400</p><button onclick=\"document.body.append(' here is s0')\"></button>"
    )
    monkeypatch.setattr(tracker_pictures, "STILL", 0.1)
    tracker = tracker_pictures.Tracker("", "/page.html", clicks=("button",))
    with tracker_pictures.chromium(tmp_path) as browser:
        picture = tracker_pictures.take(browser, tracker, f"file://{tmp_path}", ["s0"])
        assert picture.startswith(b"\x89PNG")
        monkeypatch.setattr(tracker_pictures, "PATIENCE", 1.0)
        with pytest.raises(SystemExit, match=r"does not show s1, .* within 1 s. It shows: accuracy_macro .* s0"):
            tracker_pictures.take(browser, tracker, f"file://{tmp_path}", ["s1"])
