"""What the sweeper takes a job for is what Hydra composes for it: otherwise a cell would be answered with another's result."""

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext

from genaug.app import compose_typed, register, typed
from genaug.runs.cell import cell_fingerprint
from genaug.runs.sweep import sets_value

JOBS = (
    ["seed=1", "mix.alpha=0.3"],
    ["generator=real_guidance", "generator.t0=[0.25,0.5]", "seed=0"],
    ["experiment=psld/digit_scenes", "dataset.fraction=0.5"],
    [
        "experiment=dreamda/digits_labels",
        "preset=smoke",
        "downstream=amst_tiny",
        "downstream.label=none",
        "generator.sigma=0",
    ],
    ["generator/tokens=ti_preprint", "task=generate"],
    ["augment=mixup", "trainer.num_threads=1", "paths.outputs_dir=elsewhere"],
)


@pytest.mark.parametrize("job", JOBS, ids=" ".join)
def test_a_job_is_taken_for_the_cell_that_hydra_composes(job):
    with initialize_config_dir(str(register()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        # as Hydra finds it: it imports its plug-ins anew
        sweeper = Plugins.instance().class_name_to_class["hydra_plugins.genaug_cells.sweeper.CellSweeper"](
            max_batch_size=None
        )
        sweeper.hydra_context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
        sweeper.config = compose("config", return_hydra_config=True)
        sweeper._composed = {}
        fingerprints = [cell_fingerprint(typed(sweeper._compose(job))) for _ in range(2)]  # composed, then copied
    assert fingerprints == [cell_fingerprint(compose_typed(job))] * 2


def test_only_values_are_set_on_what_was_composed_before():
    assert all(map(sets_value, ("seed=1", "task=fit", "mix.alpha=0.5", "generator.tokens.init=the")))
    assert not any(
        map(sets_value, ("generator=none", "experiment=a/b", "+mix.new=1", "~mix.m", "generator/tokens=x", "hydra.x=1"))
    )
