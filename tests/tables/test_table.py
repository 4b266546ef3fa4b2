"""From an experiment file and results on disk to the table."""

import copy
import csv
import dataclasses
import io
import itertools
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genaug.core.errors import GenaugError
from genaug.runs.collection import HIDDEN
from genaug.tables.arrangement import collect
from genaug.tables.overview import pages, row, with_records
from genaug.tables.record import read_record, record_path, write_record
from genaug.tables.render import as_json, comma_separated, latex, markdown, write_table
from genaug.tables.spec import parse_spec, read_spec, to_fraction, to_unit
from genaug.tables.sweep import PlannedCell, expand
from tests.conftest import ROOT
from tests.tables.finished_cells import EXPERIMENT, accuracy, finish, finish_all


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrc": "x"}, "no key metrc. Did you mean metric"),
        ({"unit": "per_cent"}, "unit=per_cent is unknown. Write fraction, percent, error_percent"),
        ({"baseline": {"genrator": "none"}}, "baseline=genrator is unknown. Write generator"),
        ({"published": [{"where": {"generator": "none"}, "value": 1}]}, "where lacks dataset.shots"),
        ({"published": [{"where": {}, "value": 1, "sorce": "x"}]}, "no key sorce. Did you mean source"),
        ({"publication": {"tol": 1}}, "publication has no key tol"),
        ({"published": {"none": 0.5}}, "table.published is {'none': 0.5}: write a list, e.g. published: [{where:"),
        ({"published": [0.5]}, "table.published[0] must be a mapping of keys, not 0.5"),
        ({"baseline": "none"}, "table.baseline is 'none': write the row's keys with their values"),
        ({"scale": ["x"]}, "table.scale is ['x']: write sizes by data set"),
        ({"rows": ["augmnt"]}, "table.rows and table.columns name keys of a run, not augmnt: augment …"),
        ({"curve": {"over": "mix.alpha"}}, "curve.over=mix.alpha must be one of the columns"),
    ],
)
def test_mistakes_in_a_table_section_are_named_with_the_remedy(change: dict, message: str) -> None:
    with pytest.raises(GenaugError) as error:
        parse_spec({**EXPERIMENT["table"], **change}, "experiments/paper/item.yaml")
    assert message in str(error.value)
    assert "experiments/paper/item.yaml" in str(error.value)


def test_a_published_value_without_source_or_evidence_is_refused() -> None:
    section = copy.deepcopy(EXPERIMENT["table"])
    section["publication"] = {"evidence": "figure"}
    with pytest.raises(GenaugError, match="lacks source"):
        parse_spec(section, "x")
    section["publication"] = {"source": "a paper"}
    with pytest.raises(GenaugError, match="evidence="):
        parse_spec(section, "x")


def test_a_single_row_key_may_stand_without_a_list() -> None:
    spec = parse_spec({"title": "x", "rows": "generator", "metric": "test/map"}, "x")
    assert spec.rows == ["generator"]


def test_units_are_converted_both_ways() -> None:
    assert to_unit(0.962, "error_percent") == pytest.approx(3.8)
    for unit in ("fraction", "percent", "error_percent"):
        assert to_fraction(to_unit(0.3, unit), unit) == pytest.approx(0.3)


def test_an_experiment_that_does_not_exist_is_answered_with_the_nearest(project: Path) -> None:
    with pytest.raises(GenaugError, match="Did you mean paper/item"):
        read_spec("paper/itme")


def test_a_sweep_expands_to_all_its_cells_and_the_baseline_is_shared(sweep_of) -> None:
    sweep = sweep_of()
    assert len(sweep.cells) == 2 * 2 * 6
    assert {cell.state for cell in sweep.cells} == {"missing"}
    assert len({cell.fingerprint for cell in sweep.cells}) == 24
    alphas = sweep_of("mix.alpha=0.3,0.5,0.7")
    # alpha cannot reach the baseline: its three cells are one
    assert len(alphas.cells) == 72
    assert len({cell.fingerprint for cell in alphas.cells}) == 12 + 36


def test_values_set_one_after_the_other_give_the_cells_that_composing_gives(sweep_of) -> None:
    from genaug.composition import compose_typed
    from genaug.runs.cell import cell_fingerprint

    for cell in sweep_of("preset=smoke").cells[1:3]:
        assert cell.fingerprint == cell_fingerprint(compose_typed(list(cell.overrides)))


def test_smoke_shrinks_the_sweep_by_the_experiments_own_section(sweep_of) -> None:
    sweep = sweep_of("preset=smoke")
    assert {(c.config.dataset.shots, c.config.seed) for c in sweep.cells if c.config} == {(1, 0), (1, 1)}


def test_ours_stand_beside_the_published_values_with_intervals_and_paired_tests(project: Path, sweep_of) -> None:
    table = collect(finish_all(sweep_of()), read_spec("paper/item"))
    assert table.rows == [("none",), ("real_guidance",)]
    assert table.columns == [("1",), ("2",), ("area(max)",)]
    one = table.entry(("real_guidance",), ("1",))
    assert (one.n, one.wanted, one.published_value, one.reproduced) == (6, 6, 0.9, False)
    assert table.entry(("none",), ("1",)).reproduced is True
    assert one.comparison is not None and one.comparison.n == 6
    assert one.comparison.mean == pytest.approx(0.105)  # the noise of a seed cancels in the pair
    assert one.comparison.p_value == pytest.approx(2 / 64)
    assert one.p_adjusted == pytest.approx(3 * 2 / 64)  # three comparisons: two shot counts and the area
    assert one.underpowered  # six seeds cannot carry three comparisons
    assert one.two_level is not None and one.two_level.low < 0.105 < one.two_level.high
    area = table.entry(("none",), ("area(max)",))
    base = [table.entry(("none",), (shots,)).mean for shots in ("1", "2")]
    assert area.mean == pytest.approx((base[0] + base[1]) / 2 / 2)  # type: ignore[operator]
    assert one.images == 6 * 20 and one.evaluations == 6 * 500 and one.seconds == pytest.approx(60)


def test_a_missing_seed_shrinks_n_and_a_missing_cell_is_a_dash(project: Path, sweep_of) -> None:
    gone = [
        cell
        for cell in finish_all(sweep_of()).cells
        if cell.config
        and cell.config.generator.name != "none"
        and (cell.config.seed == 3 or cell.config.dataset.shots == 2)
    ]
    for cell in gone:
        assert cell.folder is not None
        shutil.rmtree(cell.folder)
    table = collect(sweep_of(), read_spec("paper/item"))
    one = table.entry(("real_guidance",), ("1",))
    assert (one.n, one.wanted) == (5, 6)
    assert one.mean == pytest.approx(sum(one.values.values()) / 5)
    assert table.entry(("real_guidance",), ("2",)).mean is None
    assert table.entry(("real_guidance",), ("area(max)",)).mean is None  # no seed has its whole curve
    text = markdown(table)
    assert "(n=5/6)" in text
    assert "| – | – |" in text
    assert table.states == {"complete": 24 - len(gone), "missing": len(gone)}


def test_one_seed_has_a_table_without_intervals_and_with_p_of_one(project: Path, sweep_of) -> None:
    table = collect(finish_all(sweep_of("seed=0")), read_spec("paper/item"))
    one = table.entry(("real_guidance",), ("1",))
    assert one.interval is None and one.two_level is None and one.comparison is not None
    assert (one.comparison.n, one.comparison.p_value, one.comparison.interval, one.p_adjusted) == (1, 1.0, None, 1.0)
    text = markdown(table)
    assert f"| {one.mean:.3f} (n=1) |" in text and "95 % BCa" not in text and "| underpowered (n=1) |" in text
    assert write_table(table, project / "outputs" / "tables")


def test_below_five_seeds_the_values_stand_in_place_of_an_interval(project: Path, sweep_of) -> None:
    table = collect(finish_all(sweep_of("seed=0,1,2")), read_spec("paper/item"))
    one = table.entry(("real_guidance",), ("1",))
    shown = ", ".join(f"{value:.3f}" for value in one.values.values())
    text = markdown(table)
    assert f"| {one.mean:.3f} ({shown}) " in text
    assert "(+0.100, +0.102, +0.104) | – |" in text  # the differences, and no interval over so few seeds and images
    assert "95 % BCa" not in text and "(a, b, …)" in text
    rows = list(csv.DictReader(io.StringIO(comma_separated(table))))
    assert [float(value) for value in rows[3]["values"].split()] == list(one.values.values()) and not rows[3]["low"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_result_that_is_no_number_is_refused_with_its_runs_name(project: Path, sweep_of, value) -> None:
    finish_all(sweep_of())
    cell = sweep_of().cells[3]
    folder = finish(cell, project / "outputs", 0.5, metrics={"test/accuracy_macro": value})
    with pytest.raises(GenaugError, match=f"{folder.name}: test/accuracy_macro is"):
        collect(sweep_of(), read_spec("paper/item"))


def test_a_metric_that_is_a_list_is_answered_with_those_that_are_numbers(project: Path, sweep_of) -> None:
    for cell in sweep_of().cells:
        finish(cell, project / "outputs", 0.5, metrics={"test/accuracy_per_class": [0.5], "test/accuracy_macro": 0.5})
    spec = dataclasses.replace(read_spec("paper/item"), metric="test/accuracy_per_class", curve=None, published=[])
    with pytest.raises(
        GenaugError, match=r"test/accuracy_per_class is a list of numbers, .* shows one: test/accuracy_macro"
    ):
        collect(sweep_of(), spec)


def test_an_axis_has_numbers_alone(project: Path, sweep_of) -> None:
    """``dataset.shots=null`` has a column, and no place under the curve."""
    finish_all(sweep_of("dataset.shots=1,2,null"))
    table = collect(sweep_of("dataset.shots=1,2,null"), read_spec("paper/item"))
    assert [column for (column,) in table.columns] == ["1", "2", "None", "area(max)"]
    base = [table.entry(("none",), (shots,)).mean for shots in ("1", "2")]
    assert table.entry(("none",), ("area(max)",)).mean == pytest.approx(sum(base) / 4)  # type: ignore[arg-type]


def test_an_oracle_result_is_marked_wherever_it_arrives(project: Path, sweep_of) -> None:
    for cell in sweep_of().cells:
        finish(cell, project / "outputs", accuracy(cell), protocol={"select": "oracle", "oracle": True})
    table = collect(sweep_of(), read_spec("paper/item"))
    assert all(entry.oracle for entry in table.entries)
    assert "† oracle" in markdown(table) and "†" in markdown(table).splitlines()[8]


def test_a_reduced_run_claims_nothing_about_published_values(project: Path, sweep_of) -> None:
    table = collect(finish_all(sweep_of("preset=smoke")), read_spec("paper/item"))
    assert table.reduced and all(entry.reproduced is None for entry in table.entries)
    text = markdown(table)
    assert "Reduced run" in text and "Real Guidance, published" not in text and "## Published values" in text
    numerics = collect(sweep_of("trainer.precision=bf16-true"), read_spec("paper/item"))
    assert not numerics.reduced and numerics.overrides == ("trainer.precision=bf16-true",)  # a record's command has it


def test_the_table_without_overrides_is_that_of_the_last_run(project: Path) -> None:
    record = project / "outputs" / "sweeps" / "2026-01-02_00-00-00" / "cells.jsonl"
    record.parent.mkdir(parents=True)
    jobs = [
        ["generator=none", "seed=0", f"mix.m={m}", "experiment=paper/item", "preset=smoke", "tracking=local",
         "trainer.accelerator=cpu", "trainer.precision=bf16-true"]
        for m in (2, 3)
    ]  # fmt: skip
    record.write_text("".join(json.dumps({"folder": "x", "overrides": job, "failed": False}) + "\n" for job in jobs))
    assert expand("paper/item").extra == ("mix.m=2,3", "preset=smoke", "trainer.precision=bf16-true")
    assert expand("paper/item", []).extra == ()
    jobs = [
        [
            f"generator={g}",
            f"dataset.shots={k}",
            f"seed={seed}",
            "mix.alpha=0.5",
            "experiment=paper/item",
            "preset=smoke",
        ]
        for g in ("none", "da_fusion")
        for k in (1, 2)
        for seed in (0, 2)
    ]
    record.write_text("".join(json.dumps({"overrides": job}) + "\n" for job in jobs))
    extra = expand("paper/item").extra  # which the experiment has not, or preset=smoke has not
    assert extra == ("generator=none,da_fusion", "dataset.shots=1,2", "seed=0,2", "preset=smoke")
    record.write_text("".join(json.dumps({"overrides": job[:-1]}) + "\n" for job in jobs if job[0] == "generator=none"))
    assert expand("paper/item").extra == ()  # all are among its own


def test_cells_that_the_table_cannot_tell_apart_are_refused(project: Path, sweep_of) -> None:
    def by_alpha(cell: PlannedCell) -> float:
        return accuracy(cell) + (0 if cell.config is None else getattr(cell.config.mix, "alpha", 0) / 10)

    sweep = finish_all(sweep_of("mix.alpha=0.3,0.7"), by_alpha)
    with pytest.raises(GenaugError, match=r"must be among table\.rows or table\.columns"):
        collect(sweep, read_spec("paper/item"))


def test_every_rendering_holds_the_same_numbers_and_is_the_same_twice(project: Path, sweep_of) -> None:
    finish_all(sweep_of())
    spec = read_spec("paper/item")
    table = collect(sweep_of(), spec)
    paths = write_table(table, project / "outputs" / "tables")
    before = [path.read_bytes() for path in paths]
    again = write_table(collect(sweep_of(), spec), project / "outputs" / "tables")
    assert [path.read_bytes() for path in again] == before
    assert [path.suffix for path in paths] == [".md", ".csv", ".tex", ".json"]
    mean = table.entry(("real_guidance",), ("1",)).mean
    assert f"{mean:.3f}" in markdown(table) and f"{mean:.3f}" in latex(table)
    rows = list(csv.DictReader(io.StringIO(comma_separated(table))))
    assert len(rows) == 6 and float(rows[3]["mean"]) == pytest.approx(mean)
    entries = json.loads(as_json(table))["entries"]
    assert entries[3]["mean"] == pytest.approx(mean) and entries[3]["published"]["evidence"] == "figure"


def test_names_that_would_do_something_are_shown_in_every_rendering(project: Path, sweep_of) -> None:
    finish_all(sweep_of())
    spec = read_spec("paper/item")
    spec.labels = {"none": "=cmd|x", "real_guidance": "<b>{R}^2~</b>"}
    spec.published[0].source = "=HYPERLINK(1)"
    table = collect(sweep_of(), spec)
    sources = {line["source"] for line in csv.DictReader(io.StringIO(comma_separated(table)))}
    assert "'=HYPERLINK(1)" in sources and "=HYPERLINK(1)" not in sources
    assert "&lt;b&gt;{R}^2~&lt;/b&gt;" in markdown(table) and "=cmd\\|x" in markdown(table)
    body = "".join(line for line in latex(table).splitlines() if not line.startswith("%"))
    assert r"\textless{}b\textgreater{}\{R\}\textasciicircum{}2\textasciitilde{}" in body and "<b>" not in body


def test_a_value_that_two_keys_have_is_labelled_by_its_key(project: Path, sweep_of) -> None:
    finish_all(sweep_of())
    spec = read_spec("paper/item")
    spec.labels = {f"{spec.rows[0]}=none": "no images", "none": "nothing"}
    text = markdown(collect(sweep_of(), spec))
    assert "| no images |" in text and "| nothing |" not in text


def test_latex_compiles_in_principle(project: Path, sweep_of) -> None:
    finish_all(sweep_of())
    text = latex(collect(sweep_of(), read_spec("paper/item")))
    body = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert {line.count("&") for line in body} == {3}
    assert "_" not in text.replace("\\_", "").replace("% python train.py -m experiment=paper/item", "")


def test_a_record_holds_values_seeds_and_hardware_and_yields_to_no_smaller_run(project: Path, sweep_of) -> None:
    spec = read_spec("paper/item")
    with pytest.raises(GenaugError, match="No run of paper/item is complete"):
        write_record(collect(sweep_of(), spec))
    small = collect(finish_all(sweep_of("preset=smoke")), spec)
    record = json.loads(write_record(small).read_text())
    assert record["reduced"] and record["overrides"] == ["preset=smoke"]
    assert all(entry["published"] is None for entry in record["entries"])
    full = collect(finish_all(sweep_of()), spec)
    path = write_record(full)
    assert path == project / "experiments" / "results" / "paper" / "item.json"
    record = json.loads(path.read_text())
    assert not record["reduced"] and record["states"] == {"complete": 24}
    entry = record["entries"][0]
    assert entry["row"] == {"generator": "none"} and entry["published"] == 0.5
    assert entry["values"] == {str(seed): value for seed, value in full.entries[0].values.items()}
    assert record["environments"][0]["cells"] == 24 and record["environments"][0]["git_revision"]
    with pytest.raises(GenaugError, match="must not replace"):
        write_record(small)


def test_a_record_made_outside_the_checkout_is_kept_in_the_current_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT / "experiments")
    assert record_path("demo/compare") == ROOT / "experiments" / "results" / "demo" / "compare.json"
    known = read_record("demo/compare")
    monkeypatch.chdir(tmp_path)
    assert record_path("demo/compare") == tmp_path / "experiments" / "results" / "demo" / "compare.json"
    assert known is not None and read_record("demo/compare") == known


def test_the_overview_shows_records_and_marks_smoke_runs(project: Path, sweep_of, tmp_path: Path) -> None:
    spec = read_spec("paper/item")
    before = row("paper/item")
    assert "| 24 | – | 3 values, 0.3 to 0.9 (Paper, Fig. 1) | not run: needs " in before
    write_record(collect(finish_all(sweep_of("preset=smoke")), spec))
    smoke = row("paper/item")
    assert "| preset=smoke: [" in smoke and "reduced run alone, 4 of 4 runs |" in smoke
    write_record(collect(finish_all(sweep_of()), spec))
    after = row("paper/item")
    assert (
        "24 of 24 runs; " in after
        and "published values reproduced" in after
        and "(../results/paper/item.json)" in after
    )


def test_a_broken_experiment_file_breaks_only_itself(project: Path) -> None:
    (project / "experiments" / "paper" / "broken.yaml").write_text("table: [\n")
    text = (project / "experiments" / "paper" / "item.yaml").read_text()
    (project / "experiments" / "paper" / "typo.yaml").write_text(text.replace("digits", "digist"))
    assert read_spec("paper/item").title
    text = pages()["paper/README.md"]
    assert "| paper/typo | There is no preset dataset=digist." in text
    assert "| paper/broken | " in text and "cannot be read as YAML" in text and "[item](item.yaml)" in text


def test_the_lines_of_a_record_name_each_run_as_its_row_and_column_do(project: Path, sweep_of) -> None:
    spec = dataclasses.replace(read_spec("paper/item"), columns=["mix.alpha"], curve=None, published=[])
    table = collect(finish_all(sweep_of("mix.alpha=0.3,0.5,0.7", "dataset.shots=1")), spec)
    with write_record(table).with_suffix(".csv").open(newline="") as file:
        lines = [(line["generator"], line["mix.alpha"], line["seed"]) for line in csv.DictReader(file)]
    assert len(table.results) == 6 + 3 * 6  # alpha cannot reach the baseline
    generators, alphas, seeds = ({line[i] for line in lines} for i in range(3))
    assert sorted(lines) == sorted(itertools.product(generators, alphas, seeds)) and len(lines) == 2 * 3 * 6


def test_a_difference_of_average_precision_has_an_interval_over_test_images_too(project: Path, sweep_of) -> None:
    scene = np.random.default_rng(0).uniform(0, 40, (40, 2))
    targets = np.concatenate([scene, scene + 15], axis=1)[:, None]

    def rows(seed: int, missed: float) -> list[dict[str, Any]]:
        found = np.random.default_rng(seed).random(40) >= missed
        common = {"target_labels": [0], "target_crowd": [False]}
        return [
            {"id": str(i), "target_boxes": box.tolist(), **common, "boxes": (box[: int(hit)] + 0.5).tolist(),
             "labels": [0] * int(hit), "scores": [0.9] * int(hit)}
            for i, (box, hit) in enumerate(zip(targets, found, strict=True))
        ]  # fmt: skip

    sweep = finish_all(sweep_of("dataset.shots=1"))
    for cell in sweep.cells:
        assert cell.config is not None and cell.folder is not None and cell.result is not None
        missed = 0.5 if cell.config.generator.name == "none" else 0.2
        predictions = rows(cell.config.seed, missed)
        cell.result["metrics"]["test/map"] = sum(bool(row["boxes"]) for row in predictions) / 40
        (cell.folder / "predictions.json").write_text(json.dumps(predictions))
    spec = dataclasses.replace(read_spec("paper/item"), metric="test/map", curve=None, published=[])
    table = collect(sweep, spec)
    found = table.entry(("real_guidance",), ("1",))
    assert found.comparison is not None and found.two_level is not None
    assert 0 < found.two_level.low < found.comparison.mean < found.two_level.high
    write_record(table)
    low, high = (f"{end:+.3f}" for end in (found.two_level.low, found.two_level.high))
    text = with_records("<!-- differences: paper/item -->\n<!-- end -->\n")
    assert f"| {low} to {high} |" in text


def test_a_page_shows_the_records_that_it_asks_for(project: Path, sweep_of) -> None:
    spec = read_spec("paper/item")
    table = collect(finish_all(sweep_of()), spec)
    table.results[0]["overrides"].append("generator.prompt='a {name}, red'")
    path = write_record(table)
    page = "a\n<!-- record: paper/item -->\nold\n<!-- end -->\nb\n<!-- differences: paper/item -->\n<!-- end -->\n"
    text = with_records(page)
    assert "old" not in text and text.startswith("a\n<!-- record: paper/item -->\n") and with_records(text) == text
    compared = [entry for entry in table.entries if entry.comparison is not None]
    mean = f"{compared[0].comparison.mean:+.3f}"
    shown, listed = text.split("\nb\n")
    assert f"({mean}" in shown and "python train.py -m experiment=paper/item" in shown
    assert listed.count("\n| ") == len(compared) + 1 and f"| {mean} | " in listed
    with path.with_suffix(".csv").open() as file:
        commands = {row["run"]: row["command"] for row in csv.DictReader(file)}
    assert {run: shlex.split(command) for run, command in commands.items()} == {
        result["fingerprint"]: ["genaug", "run", *(word for word in result["overrides"] if not word.startswith(HIDDEN))]
        for result in table.results
    }
    with pytest.raises(GenaugError, match="no record of paper/other"):
        with_records(page.replace("paper/item", "paper/other"))
