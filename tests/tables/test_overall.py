"""Means over data sets, against values worked out by hand."""

import copy
import csv
import dataclasses
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genaug.app import _for_each_experiment
from genaug.core.errors import GenaugError
from genaug.evaluation.statistics import bootstrap_interval
from genaug.tables.arrangement import collect
from genaug.tables.overall import labelled, mean_over_datasets
from genaug.tables.plan import plan
from genaug.tables.render import comma_separated, markdown
from genaug.tables.spec import TableSpec, members, parse_spec, read_spec
from genaug.tables.sweep import PlannedCell, Sweep, expand, was_run
from genaug.tables.table import Arranged, Entry
from genaug.tables.verdict import verdicts
from tests.tables.finished_cells import EXPERIMENT, accuracy, finish_all, write_experiment

SECTION: dict[str, Any] = {
    "title": "Two sets together",
    "overall": {"items": ["paper/item", "paper/other"]},
    "rows": ["generator"],
    "columns": ["dataset.shots"],
    "metric": "test/accuracy_macro",
    "baseline": {"generator": "baseline"},
    "curve": {"over": "dataset.shots", "area": ["max"]},
    "published": [
        {"where": {"generator": "Real Guidance", "dataset.shots": "area(max)"}, "value": 0.7, "source": "Paper",
         "evidence": "figure", "tolerance": 0.05},
    ],
}  # fmt: skip


def part(**rows: dict[int, float]) -> Arranged:
    """One data set with one column: each row's values by seed, of seeds 0, 1 and 2."""
    entries = {((name,), ("1",)): Entry(row=(name,), column=("1",), wanted=3, values=v) for name, v in rows.items()}
    return Arranged(rows=[(name,) for name in rows], columns=[("1",)], entries=entries)


def spec_of(**overall: Any) -> TableSpec:
    return parse_spec({**SECTION, "overall": {**SECTION["overall"], **overall}}, "x")


EASY = part(none={0: 0.8, 1: 0.9, 2: 1.0}, method={0: 0.9, 1: 1.0, 2: 0.8})
HARD = part(none={0: 0.1, 1: 0.2, 2: 0.3}, method={0: 0.3, 1: 0.3, 2: 0.5})


def mean(spec: TableSpec, first: Arranged = EASY, second: Arranged = HARD) -> dict[str, Entry]:
    found = mean_over_datasets({"paper/item": first, "paper/other": second}, spec)
    assert found.columns == [("1",)] and found.rows == [("none",), ("method",)][-len(found.rows) :]
    return {row[0]: entry for (row, _), entry in found.entries.items()}


def test_a_seed_has_the_mean_of_its_values_over_the_data_sets() -> None:
    found = mean(spec_of())
    assert found["none"].values == pytest.approx({0: 0.45, 1: 0.55, 2: 0.65})
    assert found["method"].values == pytest.approx({0: 0.6, 1: 0.65, 2: 0.65})
    assert found["method"].num_datasets == (2, 2) and found["method"].wanted == 3


def test_a_seed_that_one_data_set_lacks_has_no_mean_and_is_missing_from_n() -> None:
    found = mean(spec_of(), HARD, part(none={0: 0.8, 2: 1.0}, method={0: 0.9, 1: 1.0, 2: 0.8}))
    assert found["none"].values == pytest.approx({0: 0.45, 2: 0.65}) and (found["none"].n, found["none"].wanted) == (
        2,
        3,
    )
    assert found["method"].n == 3


def test_there_is_no_mean_where_a_data_set_has_no_value() -> None:
    found = mean(spec_of(), EASY, part(none={0: 0.1, 1: 0.2, 2: 0.3}, method={}))
    assert found["none"].n == 3 and found["method"].values == {} and found["method"].num_datasets == (1, 2)
    without_row = mean(spec_of(), EASY, part(none={0: 0.1, 1: 0.2, 2: 0.3}))
    assert without_row["method"].values == {} and without_row["method"].num_datasets == (1, 2)


def test_on_a_scale_of_its_own_a_data_set_goes_from_its_least_to_its_greatest_value() -> None:
    found = mean(spec_of(scale="min_max"))
    # easy: .8 is 0 and 1.0 is 1; hard: .1 is 0 and .5 is 1
    assert found["none"].values == pytest.approx({0: 0.0, 1: (0.5 + 0.25) / 2, 2: (1.0 + 0.5) / 2})
    assert found["method"].values == pytest.approx({0: (0.5 + 0.5) / 2, 1: (1.0 + 0.5) / 2, 2: (0.0 + 1.0) / 2})


def test_the_scale_of_a_shifted_and_stretched_data_set_is_the_same() -> None:
    stretched = part(
        **{
            name: {s: 0.3 + v / 2 for s, v in HARD.entries[(name,), ("1",)].values.items()}
            for name in ("none", "method")
        }
    )
    first, second = (mean(spec_of(scale="min_max"), EASY, hard) for hard in (HARD, stretched))
    assert all(first[name].values == pytest.approx(second[name].values) for name in first)


def test_a_row_that_is_left_out_has_no_place_on_the_scale() -> None:
    found = mean(spec_of(scale="min_max", without={"generator": "none"}))
    assert list(found) == ["method"]
    assert found["method"].values == pytest.approx({0: (0.5 + 0.0) / 2, 1: (1.0 + 0.0) / 2, 2: (0.0 + 1.0) / 2})


@pytest.mark.parametrize(
    "second", [part(none={0: 0.1, 1: 0.2, 2: 0.3}, method={0: 0.3}), part(none={0: 0.4}, method={0: 0.4})]
)
def test_a_data_set_that_is_not_complete_or_does_not_differ_has_no_scale(second: Arranged) -> None:
    found = mean(spec_of(scale="min_max"), EASY, second)
    assert all(entry.values == {} and entry.num_datasets == (1, 2) for entry in found.values())


def test_rows_are_put_together_by_their_labels_and_two_of_one_label_are_refused() -> None:
    labels = {"none": "baseline", "method": "Method"}
    assert labelled(EASY, labels, "paper/item").rows == [("baseline",), ("Method",)]
    with pytest.raises(GenaugError, match=r"paper/item\.yaml: two rows have one label"):
        labelled(EASY, {"none": "Method", "method": "Method"}, "paper/item")


def test_settings_stand_side_by_side_as_columns() -> None:
    spec = spec_of(items={"first": ["paper/item"], "second": ["paper/item", "paper/other"]})
    spec.columns = ["setting", *spec.columns]
    found = mean_over_datasets({"paper/item": EASY, "paper/other": HARD}, spec)
    assert found.columns == [("first", "1"), ("second", "1")] and found.rows == [("none",), ("method",)]
    assert found.entries[("none",), ("first", "1")].values == pytest.approx({0: 0.8, 1: 0.9, 2: 1.0})
    assert found.entries[("none",), ("second", "1")].values == pytest.approx({0: 0.45, 1: 0.55, 2: 0.65})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overall": {"itms": []}}, "no key itms. Did you mean items"),
        ({"overall": {"items": ["a/b"], "scale": "max"}}, "scale=max is unknown. Write none, min_max"),
        ({"overall": {"items": ["a/b"], "without": {"mix": 1}}}, "without=mix is unknown. Write generator"),
        ({"overall": {"items": ["a/b"], "scale": "min_max"}, "unit": "percent"}, "has no unit: leave table.unit out"),
    ],
)
def test_mistakes_in_the_section_are_named_with_the_remedy(change: dict[str, Any], message: str) -> None:
    with pytest.raises(GenaugError) as error:
        parse_spec({**SECTION, **change}, "experiments/paper/overall.yaml")
    assert message in str(error.value)


@pytest.fixture
def sweep(project: Path) -> Iterator[Sweep]:
    """``paper/overall``, the mean of ``paper/item`` and ``paper/other``, which calls its rows and draws its shots otherwise."""
    prior = {"prior": {"path": str(project / "prior")}}
    other = {**copy.deepcopy(EXPERIMENT), **prior, "downstream": {"num_steps": 61}}
    write_experiment(project, other, "paper/other")
    write_experiment(project, {"table": SECTION}, "paper/overall")
    yield expand("paper/overall", [], project / "outputs")


def harder(cell: PlannedCell) -> float:
    assert cell.config is not None
    return accuracy(cell) - (0.2 if cell.config.experiment == "paper/other" else 0.0)


def test_a_mean_is_read_from_the_runs_of_its_experiments(project: Path, sweep: Sweep) -> None:
    assert members("paper/overall") == ["paper/item", "paper/other"] and members("paper/item") == ["paper/item"]
    assert len(sweep.cells) == 48 and len({cell.fingerprint for cell in sweep.cells}) == 48
    assert plan(sweep, read_spec("paper/overall")).distinct_runs == 48
    table = collect(finish_all(sweep, harder), read_spec("paper/overall"))
    one = [collect(part, read_spec(part.item)) for part in sweep.parts]
    assert table.rows == [("baseline",), ("Real Guidance",)] and table.columns == [("1",), ("2",), ("area(max)",)]
    for preset, name in (("none", "baseline"), ("real_guidance", "Real Guidance")):
        for column in table.columns:
            found, values = table.entry((name,), column), [t.entry((preset,), column).values for t in one]
            assert found.values == pytest.approx({seed: (values[0][seed] + values[1][seed]) / 2 for seed in range(6)})
            assert found.interval == bootstrap_interval(list(found.values.values()))
    best = table.entry(("Real Guidance",), ("area(max)",))
    assert best.published_value == 0.7 and best.reproduced is False
    assert best.comparison is not None and best.comparison.n == 6 and best.comparison.p_value == pytest.approx(2 / 64)
    own = [t.entry(("real_guidance",), ("area(max)",)).comparison for t in one]
    assert own[0] is not None and own[1] is not None
    assert best.comparison.mean == pytest.approx((own[0].mean + own[1].mean) / 2)
    text = markdown(table)
    assert (
        "Each seed's value is its mean over the data sets (paper/item, paper/other)" in text
        and "data sets)" not in text.split("\n## ")[0].splitlines()[8]
    )
    assert len(verdicts(table, project / "outputs", deep=False)) == 2


def test_a_data_set_without_runs_is_counted_and_not_left_out_of_the_mean_in_silence(
    project: Path, sweep: Sweep
) -> None:
    finish_all(sweep, harder)
    for cell in sweep.parts[1].cells:
        if cell.config is not None and cell.config.generator.name != "none":
            assert cell.folder is not None
            shutil.rmtree(cell.folder)
    again = expand("paper/overall", [], project / "outputs")
    table = collect(again, read_spec("paper/overall"))
    assert table.entry(("baseline",), ("1",)).n == 6
    assert table.entry(("Real Guidance",), ("1",)).mean is None
    assert "| Real Guidance | – (1 of 2 data sets) | – (1 of 2 data sets) |" in markdown(table)
    rows = list(csv.DictReader(io.StringIO(comma_separated(table))))
    assert {(row["generator"], row["datasets"]) for row in rows} == {
        ("baseline", "2 of 2"),
        ("Real Guidance", "1 of 2"),
    }


def test_scaled_values_have_no_verdict_and_say_what_they_are(project: Path, sweep: Sweep) -> None:
    spec = read_spec("paper/overall")
    assert spec.overall is not None
    spec.overall = dataclasses.replace(spec.overall, scale="min_max")
    table = collect(finish_all(sweep, harder), spec)
    assert all(0 <= value <= 1 for entry in table.entries for value in entry.values.values())
    assert verdicts(table, project / "outputs", deep=False) == []
    assert "are no accuracies" in markdown(table)


def test_its_command_runs_each_of_its_experiments_and_it_has_no_run_of_its_own(project: Path, sweep: Sweep) -> None:
    from genaug.composition import compose_typed

    assert _for_each_experiment(["-m", "experiment=paper/overall", "seed=0"]) == [
        ["-m", "experiment=paper/item", "seed=0"],
        ["-m", "experiment=paper/other", "seed=0"],
    ]
    assert _for_each_experiment(["seed=0"]) == [["seed=0"]]
    assert not was_run(project / "outputs", "paper/overall")
    with pytest.raises(GenaugError, match="no run of its own: genaug sweep experiment=paper/overall"):
        compose_typed(["experiment=paper/overall"])


def test_an_experiment_with_other_rows_is_refused(project: Path, sweep: Sweep) -> None:
    write_experiment(
        project, {"table": {**SECTION, "rows": ["mix.m"], "baseline": {}, "published": []}}, "paper/overall"
    )
    with pytest.raises(GenaugError, match="takes the mean of paper/item, whose rows"):
        read_spec("paper/overall")
