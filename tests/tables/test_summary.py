"""The table after a sweep and of ``genaug compare``: one row per setting, nothing merged and nothing dropped."""

import pytest

from genaug.app import compose_typed
from genaug.runs.cell import Cell, setting_fingerprint
from genaug.runs.collection import read_results
from genaug.tables.summary import summarise
from genaug.tables.sweep import PlannedCell
from tests.tables.finished_cells import finish


def results(tmp_path, *overrides):
    """Finished cells of these overrides, in their order of writing: 0.1, 0.2 …"""
    folders = []
    for i, text in enumerate(overrides):
        words = (*text.split(), f"paths.outputs_dir={tmp_path}")
        cell = PlannedCell(overrides=words, config=compose_typed(list(words)), fingerprint=None, state="missing")
        folders.append(finish(cell, tmp_path, (i + 1) / 10))
    return read_results(folders)


def rows(found):
    (summary,) = summarise(found)
    return summary.columns, {row.setting: row.values for row in summary.rows}


@pytest.mark.parametrize(
    "option, values",
    [
        ("leakage", ("data_centric", "none")),
        ("filter", ("none", "blank")),
        ("augment", ("none", "randaugment")),
        ("dataset.shots", ("2", "4")),
        ("mix.alpha", ("0.3", "0.5")),
    ],
)
def test_settings_that_differ_in_one_choice_are_two_rows_that_show_it(tmp_path, option, values):
    columns, found = rows(results(tmp_path, *(f"generator=real_guidance {option}={value}" for value in values)))
    assert option in columns and len(found) == 2
    assert {setting[columns.index(option)] for setting in found} == set(values)
    assert [list(values.values()) for values in found.values()] == [[0.1], [0.2]]


def test_settings_that_differ_by_a_preset_alone_are_told_apart_by_the_key_that_differs(tmp_path):
    found = results(tmp_path, "generator=real_guidance", "generator=rg_low generator.name=real_guidance")
    columns, by_setting = rows(found)
    assert len(by_setting) == 2 and columns[2].startswith("generator.")


def test_seeds_are_one_row_also_where_the_generators_is_fixed(tmp_path):
    columns, found = rows(results(tmp_path, *(f"generator=real_guidance generator.seed=0 seed={s}" for s in (0, 1, 2))))
    assert list(found.values()) == [{0: 0.1, 1: 0.2, 2: 0.3}] and columns == ("dataset", "generator")


def test_seeds_of_the_generator_are_rows_of_their_own(tmp_path):
    columns, found = rows(results(tmp_path, *(f"generator=real_guidance generator.seed={s}" for s in (0, 1))))
    assert columns[2] == "generator.seed" and list(found.values()) == [{0: 0.1}, {0: 0.2}]


def test_a_baseline_says_nothing_of_images_that_it_lacks(tmp_path):
    columns, found = rows(
        results(tmp_path, "generator=none", "generator=real_guidance mix.alpha=0.3", "generator=real_guidance")
    )
    assert columns == ("dataset", "generator", "mix.alpha") and len(found) == 3
    assert ("digits", "none", "–") in found
    columns, found = rows(results(tmp_path / "two", "generator=none", "generator=real_guidance"))
    assert columns == ("dataset", "generator") and len(found) == 2


def test_a_setting_is_what_cells_share_but_their_seeds():
    fingerprints = [setting_fingerprint(compose_typed(["generator=da_fusion", f"seed={seed}"])) for seed in (0, 1)]
    assert fingerprints[0] == fingerprints[1]
    cells = {Cell.of(compose_typed(["generator=da_fusion", f"seed={seed}"])).fingerprint for seed in (0, 1)}
    other = setting_fingerprint(compose_typed(["generator=da_fusion", "generator.tokens.num_steps=7"]))
    assert len(cells) == 2 and other != fingerprints[0]
