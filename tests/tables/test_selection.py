"""Tables of finished runs without an experiment: one row per setting, nothing merged, nothing dropped, data sets apart."""

import dataclasses
import io
import json
from contextlib import redirect_stdout
from types import SimpleNamespace

import hydra
import pytest
from PIL import Image

from genaug.composition import Composer, compose_typed
from genaug.config_source import register
from genaug.core.errors import GenaugError
from genaug.core.words import readable
from genaug.data.pool import Pool
from genaug.runs.cell import Cell, setting_fingerprint
from genaug.runs.collection import read_results
from genaug.runs.sweep import note_size
from genaug.tables.selection import last_sweep, select, tables_of
from genaug.tables.sweep import PlannedCell
from genaug.tables.table import Entry
from genaug.tables.terminal import print_table
from genaug.tables.verdict import verdicts
from tests.tables.finished_cells import finish


def hydras(choices):
    with hydra.initialize_config_dir(str(register()), version_base="1.3"):
        return hydra.compose("config", choices)


composed = Composer(hydras)


def results(tmp_path, *overrides, values=None):
    """Finished runs of these overrides, in their order of writing: 0.1, 0.2 …"""
    folders = []
    for i, text in enumerate(overrides):
        words = (*text.split(), f"paths.outputs_dir={tmp_path}")
        cell = PlannedCell(overrides=words, config=composed(words), fingerprint=None, state="missing")
        folders.append(finish(cell, tmp_path, (i + 1) / 10 if values is None else values[i]))
    return read_results(folders)


def rows(found):
    (table,) = tables_of(found)
    return table.spec.rows, table.spec.columns, {(*e.row, *e.column): e.values for e in table.entries if e.values}


@pytest.mark.parametrize(
    "option, values",
    [
        ("leakage", ("data_centric", "none")),
        ("filter", ("none", "blank")),
        ("augment", ("none", "randaugment")),
        ("dataset.shots", ("2", "4")),
        ("mix.alpha", ("0.3", "0.5")),
        ("trainer.precision", ("32-true", "bf16-true")),
    ],
)
def test_settings_that_differ_in_one_choice_are_two_rows_that_show_it(tmp_path, option, values):
    keys, columns, found = rows(results(tmp_path, *(f"generator=real_guidance {option}={value}" for value in values)))
    assert (columns if option.startswith(("dataset", "trainer")) else keys)[-1] == option and len(found) == 2
    assert {setting[-1] for setting in found} == set(values)
    assert [list(values.values()) for values in found.values()] == [[0.1], [0.2]]


def test_settings_that_differ_by_a_preset_alone_are_told_apart_by_the_key_that_differs(tmp_path):
    found = results(tmp_path, "generator=real_guidance", "generator=diff_aug generator.name=real_guidance")
    keys, _, by_setting = rows(found)
    assert len(by_setting) == 2 and keys[1].startswith("generator.")


def test_seeds_are_one_row_also_where_the_generators_is_fixed(tmp_path):
    keys, columns, found = rows(
        results(tmp_path, *(f"generator=real_guidance generator.seed=0 seed={s}" for s in (0, 1, 2)))
    )
    assert list(found.values()) == [{0: 0.1, 1: 0.2, 2: 0.3}] and (keys, columns) == (["generator"], [])


def test_seeds_of_the_generator_are_rows_of_their_own(tmp_path):
    keys, _, found = rows(results(tmp_path, *(f"generator=real_guidance generator.seed={s}" for s in (0, 1))))
    assert keys[1] == "generator.seed" and list(found.values()) == [{0: 0.1}, {0: 0.2}]


def test_a_baseline_says_nothing_of_images_that_it_lacks_and_every_setting_is_compared_with_it(tmp_path):
    found = results(tmp_path, "generator=none", "generator=real_guidance mix.alpha=0.3", "generator=real_guidance")
    keys, _, by_setting = rows(found)
    assert keys == ["generator", "mix.alpha"] and len(by_setting) == 3 and ("none", "–") in by_setting
    (table,) = tables_of(found)
    gains = {entry.row: entry.comparison.mean for entry in table.entries if entry.comparison is not None}
    assert {round(gain, 6) for gain in gains.values()} == {0.1, 0.2}


def test_a_method_is_compared_with_the_baseline_of_its_own_number_of_shots(tmp_path):
    words = [f"generator={g} dataset.shots={s}" for s in (2, 4) for g in ("none", "real_guidance")]
    (table,) = tables_of(results(tmp_path, *words, values=[0.3, 0.4, 0.7, 0.9]))
    gains = {entry.column: entry.comparison.mean for entry in table.entries if entry.comparison is not None}
    assert {key: round(gain, 6) for key, gain in gains.items()} == {("2",): 0.1, ("4",): 0.2}


def test_runs_that_no_key_tells_apart_are_two_rows_and_the_table_says_why(tmp_path, capsys):
    one, other = results(tmp_path, "generator=none seed=0", "generator=none seed=1")
    other["setting"] = "0123456789abcdef"  # as another version of a component, or other content of the data, has it
    (table,) = tables_of([one, other])
    print_table(table, 120)
    shown = capsys.readouterr().out
    assert (
        "none, setting 01234567" in shown and "another version of genaug made them, or the images have changed" in shown
    )


def test_two_data_sets_never_share_a_table_though_their_names_do(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    found = results(tmp_path, "generator=none", "generator=real_guidance")
    for i, result in enumerate(found):
        result["names"]["dataset"], result["config"]["dataset"]["root"] = "mine", str(tmp_path / ("one", "two")[i])
    tables = tables_of(found)
    assert [table.item for table in tables] == ["selection/mine_1", "selection/mine_2"]
    assert all(len(table.results) == 1 and not any(e.comparison for e in table.entries) for table in tables)


def test_runs_are_chosen_by_any_key_and_by_comparisons(tmp_path):
    results(
        tmp_path,
        "generator=none",
        "generator=real_guidance mix.alpha=0.3",
        "generator=real_guidance mix.alpha=0.5 seed=1",
    )

    def chosen(*conditions):
        return sorted(r["metrics"]["test/accuracy_macro"] for r in select(tmp_path, conditions))

    assert chosen("generator=none") == [0.1]
    assert chosen("generator=none,real_guidance", "seed=0") == [0.1, 0.2]
    assert chosen("generator!=none") == [0.2, 0.3] == chosen("generator=real*")
    assert chosen("mix.alpha<0.4") == [0.2] and chosen("mix.alpha=0.50", "generator=real_guidance") == [0.3]
    assert chosen("real_guidance_replace") == [0.2, 0.3]
    assert chosen("generator='none'") == [0.1]
    with pytest.raises(GenaugError, match=r"mix\.alpha"):
        chosen("mix.alhpa=0.3")
    with pytest.raises(GenaugError, match="No finished run"):
        chosen("generator=da_fusion")


def test_a_preset_which_no_run_keeps_is_told_from_a_misspelt_key(tmp_path):
    results(tmp_path, "generator=none")
    with pytest.raises(GenaugError, match=r"preset=smoke sets other keys .* by experiment=…, or --last"):
        select(tmp_path, ["preset=smoke"])


def test_last_takes_the_runs_of_the_last_sweep(tmp_path):
    found = results(tmp_path, "generator=none", "generator=real_guidance")
    for time, result in zip(("2026-01-01", "2026-01-02"), found, strict=True):
        (tmp_path / "sweeps" / time).mkdir(parents=True)
        line = {"folder": str(tmp_path / "runs" / result["cell"]), "overrides": [], "state": "ok"}
        (tmp_path / "sweeps" / time / "cells.jsonl").write_text(json.dumps(line) + "\n")
    assert [r["names"]["generator"] for r in select(tmp_path, last=True)] == ["real_guidance"]
    assert last_sweep(tmp_path)[1] == 0
    note_size(tmp_path / "sweeps" / "2026-01-02", 3)
    assert last_sweep(tmp_path)[1] == 2
    (tmp_path / "sweeps" / time / "cells.jsonl").write_text(
        2 * (json.dumps(line) + "\n")
    )  # alpha=0.3,0.5 of a baseline
    note_size(tmp_path / "sweeps" / "2026-01-02", 2)
    assert last_sweep(tmp_path) == ([tmp_path / "runs" / result["cell"]], 0)
    (tmp_path / "runs" / result["cell"] / "result.json").unlink()
    assert last_sweep(tmp_path)[1] == 2
    note_size(tmp_path / "sweeps" / "2026-01-03", 2)
    with pytest.raises(GenaugError, match=r"No run of the last sweep .* is complete: its command, issued again"):
        select(tmp_path, last=True)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_table_is_never_wider_than_the_terminal(tmp_path, width):
    words = [
        f"generator={g} mix.alpha={a} seed={s}" for g in ("none", "real_guidance") for a in (0.3, 0.5) for s in range(5)
    ]
    (table,) = tables_of(results(tmp_path, *words, values=[0.5 + 0.01 * i for i in range(len(words))]))
    shown = io.StringIO()
    with redirect_stdout(shown):
        print_table(table, width)
    assert max(map(len, shown.getvalue().splitlines())) <= width
    assert "real_guidance" in shown.getvalue().replace("\n", "") or width < 80


def test_the_legend_names_the_row_that_all_differences_are_to(tmp_path):
    words = [f"generator={g} augment={a}" for g in ("none", "real_guidance") for a in ("flip_crop", "randaugment")]
    (table,) = tables_of(results(tmp_path, *words))

    def legend():
        shown = io.StringIO()
        with redirect_stdout(shown):
            print_table(table, 200)
        return shown.getvalue().rpartition("difference: to ")[2]

    assert table.spec.rows == ["generator", "augment"]
    assert legend().startswith("the run without generated images, ")
    table.spec = dataclasses.replace(table.spec, baseline={"generator": "none", "augment": "flip_crop"})
    assert legend().startswith("none, flip_crop, ")


def test_a_selection_has_a_verdict_which_names_its_data(tmp_path):
    words = [f"generator={g} seed={s}" for g in ("none", "real_guidance") for s in range(8)]
    found = results(tmp_path, *words, values=[0.5 + 0.01 * s + g for g in (0, 0.1) for s in range(8)])
    for result in found:
        result["counts"]["images_rejected"] = 5 if result["pool"] else 0
    (verdict,) = [one for table in tables_of(found) for one in verdicts(table, tmp_path, deep=False)]
    assert verdict.answer == "better" and verdict.sentences[0].startswith("On digits")
    assert verdict.sentences[2].startswith("15 generated images were used")  # of 20 in the pool


def test_what_a_prior_cannot_draw_is_said_once_and_not_once_per_method(tmp_path):
    words = ("generator=none", "generator=real_guidance", "generator=real_guidance generator.t0=0.25")
    found = results(tmp_path, *words)
    for result in found:
        if result["names"]["generator"] != "none":
            result["prior_check"] = "prior=tiny cannot draw such images."
    (verdict,) = [one for table in tables_of(found) for one in verdicts(table, tmp_path, deep=False)]
    assert verdict.warnings.count("prior=tiny cannot draw such images.") == 1
    assert sum("cannot draw" in warning for warning in verdict.warnings) == 1


@pytest.mark.parametrize("written", ["{}", "'{}'", '"{}"'])
def test_a_folder_with_a_comma_is_one_place_quoted_or_not(tmp_path, written):
    folder = tmp_path / "Vögel, 2026"
    for i in range(4):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (60 * i, 0, 0)).save(folder / "ab"[i % 2] / f"{i}.png")
    results(tmp_path, "generator=none")
    words = ("dataset=image_folder", f"dataset.root={folder}", "generator=none", f"paths.outputs_dir={tmp_path}")
    finish(
        PlannedCell(overrides=words, config=composed(readable(words)), fingerprint=None, state="missing"), tmp_path, 0.7
    )
    (found,) = select(tmp_path, [f"dataset.root={written.format(folder)}"])
    assert found["metrics"]["test/accuracy_macro"] == 0.7


def test_an_agreement_that_nobody_could_judge_is_said(tmp_path, monkeypatch):
    (table,) = tables_of(results(tmp_path, "generator=none", "generator=real_guidance"))
    pool = Pool(fingerprint="0123456789abcdef", folder=tmp_path, samples=[SimpleNamespace(index=0, label={})])
    trial = SimpleNamespace(task="classification", train=[], val=[])
    monkeypatch.setattr("genaug.tables.verdict.pool_of", lambda *arguments: (pool, trial))
    (verdict,) = verdicts(table, tmp_path)
    assert "real_guidance: whether its images still look like their class was not judged: no two" in " ".join(
        verdict.warnings
    )


def test_a_missing_leak_audit_is_named_with_the_command_that_makes_it(tmp_path):
    (table,) = tables_of(results(tmp_path, "generator=none", "generator=real_guidance"))
    (verdict,) = verdicts(table, tmp_path)
    (said,) = [warning for warning in verdict.warnings if "leak audit" in warning]
    assert f"For real_guidance: genaug leaks 01234567 --features pixels --outputs {tmp_path} (" in said


def test_a_method_of_which_no_run_is_complete_is_named(tmp_path):
    (table,) = tables_of(results(tmp_path, "generator=none", "generator=real_guidance"))
    table.entries.append(Entry(row=("diff_mix",), column=(), wanted=8, values={}))
    (verdict,) = verdicts(table, tmp_path, deep=False)
    assert "No run is complete of diff_mix." in verdict.warnings


def test_images_that_two_augmentations_share_are_warned_about_once_by_their_generator(tmp_path):
    found = results(
        tmp_path, "generator=none", *(f"generator=real_guidance augment={a}" for a in ("none", "flip_crop"))
    )
    for result in found[1:]:
        result |= {"pool": "0" * 16, "rejected": {"unchanged": 9}}
        result["counts"] |= {"images_generated": 10, "images_reused": 0}
    (verdict,) = [one for table in tables_of(found) for one in verdicts(table, tmp_path, deep=False)]
    (rejected,) = [warning for warning in verdict.warnings if "were rejected" in warning]
    assert rejected.startswith("real_guidance: ")


def test_a_setting_is_what_runs_share_but_their_seeds():
    fingerprints = [setting_fingerprint(compose_typed(["generator=da_fusion", f"seed={seed}"])) for seed in (0, 1)]
    assert fingerprints[0] == fingerprints[1]
    cells = {Cell.of(compose_typed(["generator=da_fusion", f"seed={seed}"])).fingerprint for seed in (0, 1)}
    other = setting_fingerprint(compose_typed(["generator=da_fusion", "generator.tokens.num_steps=7"]))
    assert len(cells) == 2 and other != fingerprints[0]


def test_fewer_errors_are_better(tmp_path):
    words = [f"generator={g} seed={s}" for g in ("none", "real_guidance") for s in range(8)]
    (table,) = tables_of(results(tmp_path, *words, values=[0.5] * 8 + [0.3] * 8))
    table.spec = dataclasses.replace(table.spec, unit="error_percent")
    for entry in table.entries:
        entry.values = {seed: 100 * value for seed, value in entry.values.items()}
    (verdict,) = verdicts(table, tmp_path, deep=False)
    assert verdict.answer == "better" and "70.0 %" in verdict.sentences[0]
