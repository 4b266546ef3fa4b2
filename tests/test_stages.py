"""A run, the plan and the store's cleaning agree on what a run needs and where it lies."""

import json
import shutil
import time
from pathlib import Path

import pytest

from genaug.composition import compose_typed
from genaug.config import RunConfig
from genaug.core.errors import GenaugError
from genaug.line import line_of
from genaug.run import run
from genaug.runs.cell import Cell
from genaug.runs.collection import state_of
from genaug.runs.garbage import YOUNG, find_garbage
from genaug.stages import STAGES, Artefact, WorkingPrior
from genaug.tables.plan import plan
from genaug.tables.spec import TableSpec
from genaug.tables.sweep import PlannedCell, Sweep

SMALL = (
    "dataset.shots=1",
    "generator=da_fusion",
    "generator.num_steps=2",
    "generator.t0=1",
    "generator.tokens.num_steps=1",
    "generator.tokens.batch_size=1",
    "leakage=model_centric",
    "leakage.erasure.iterations=1",
    "leakage.erasure.num_steps=2",
    "filter=blank",
    "mix.m=2",
    "downstream.num_steps=2",
    "downstream.batch_size=8",
    "trainer.num_threads=1",
    "tracking=local",
)


def to_make(config: RunConfig) -> dict[str, int]:
    """What the plan says is missing of a run, stages of which nothing is missing left out."""
    cell = PlannedCell(overrides=(), config=config, fingerprint=None, state="missing")
    sweep = Sweep(item="x", extra=(), cells=[cell], outputs=config.paths.outputs)
    cost = plan(sweep, TableSpec(title="", rows=["generator"], metric="test/accuracy_macro")).cost
    return {stage: count for stage, count in cost.to_make.items() if count and stage != "train"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Cell]:
    """A run through all stages."""
    config = compose_typed([*SMALL, f"paths.outputs_dir={tmp_path_factory.mktemp('outputs')}"])
    assert to_make(config) == {"erase": 10, "fit": 1, "generate": 20, "filter": 1}
    cell = Cell.of(config)
    run(cell)
    return config, cell


@pytest.mark.slow
def test_after_a_run_nothing_is_missing_and_nothing_is_garbage(finished: tuple[RunConfig, Cell]) -> None:
    config, cell = finished
    assert to_make(config) == {}
    assert find_garbage(config.paths.outputs, now=time.time() + 2 * YOUNG).paths == []
    result = cell.result()
    assert result is not None and set(result["seconds"]) <= set(STAGES)
    assert [config.paths.outputs / path for path in result["artefacts"]] == line_of(
        config, config.dataset.load()
    ).places


@pytest.mark.parametrize("stage", ["erase", "fit", "generate", "filter"])
def test_what_is_deleted_is_what_the_plan_says_is_missing(finished: tuple[RunConfig, Cell], stage: str) -> None:
    config, _ = finished
    line = line_of(config, config.dataset.load())
    places = {
        "erase": line.erase[0].place,
        "fit": line.fit and line.fit.place,
        "filter": line.select and line.select.place,
    }
    assert line.generate is not None
    image = config.paths.store.image_path(line.generate.images(1)[0].fingerprint)
    path = image if stage == "generate" else places[stage]
    assert path is not None
    kept = path.with_name("kept")
    shutil.move(path, kept)
    try:
        assert to_make(config) == {stage: 1}
    finally:
        shutil.move(kept, path)
    assert to_make(config) == {}


def test_a_larger_m_misses_only_its_new_images(finished: tuple[RunConfig, Cell]) -> None:
    config, _ = finished
    outputs = config.paths.outputs
    assert to_make(compose_typed([*SMALL, "mix.m=3", f"paths.outputs_dir={outputs}"])) == {"generate": 10}


def test_a_run_that_ended_early_says_in_which_stage_and_keeps_what_it_needs(finished: tuple[RunConfig, Cell]) -> None:
    config, cell = finished
    result = cell.folder / "result.json"
    text = result.read_text()
    status = json.loads((cell.folder / "status.json").read_text())
    try:
        result.unlink()
        (cell.folder / "status.json").write_text(json.dumps({**status, "state": "failed", "stage": "train"}))
        state = state_of(cell.folder)
        assert state is not None and state.stage == "train"
        assert find_garbage(config.paths.outputs, now=time.time() + 2 * YOUNG).paths == []
    finally:
        result.write_text(text)
        (cell.folder / "status.json").write_text(json.dumps(status))


def test_a_run_s_erasures_stay_out_of_the_cached_prior(tmp_path: Path) -> None:
    config = compose_typed(["generator=da_fusion", "leakage=model_centric"])
    with_erasures = WorkingPrior(config=config, erasures={"one": tmp_path}).load()
    plain = WorkingPrior(config=config).load()
    assert with_erasures is not None and plain is not None
    assert with_erasures.erasures == {"one": tmp_path} and plain.erasures == {}
    assert with_erasures.unet is plain.unet
    plain.num_evaluations = 7
    again = WorkingPrior(config=config).load()
    assert again is not None and again.num_evaluations == 0  # each run counts its own


def test_generators_compute_where_the_trainer_does(tmp_path: Path) -> None:
    """A generator without a prior is given the device, too."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    choices = ["generator=latent_interpolation_pixel", "generator.online=false", "mix.m=1", "dataset.shots=1"]
    for accelerator in ("cpu", "gpu"):
        config = compose_typed(
            [*choices, f"trainer.accelerator={accelerator}", f"paths.outputs_dir={tmp_path / accelerator}"]
        )
        stage = line_of(config, config.dataset.load()).generate
        assert stage is not None
        make = lambda stage=stage, config=config: stage.make(WorkingPrior(config=config), Artefact(folder=None), print)
        if accelerator == "cpu":
            assert len(make().samples) == 10
        else:
            with pytest.raises(GenaugError, match="torch sees no GPU"):
                make()
