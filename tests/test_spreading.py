"""One of the processes that make a pool together: it makes what it is handed and nobody has made."""

from pathlib import Path

from genaug.composition import compose_typed
from genaug.line import line_of
from genaug.spreading import Maker
from genaug.stages import Artefact, Generate, WorkingPrior


def test_a_maker_makes_what_is_missing_of_its_share_and_counts_its_own_evaluations(tmp_path: Path) -> None:
    words = ["generator=real_guidance", "generator.num_steps=2", "generator.t0=1", "dataset.shots=1", "mix.m=2"]
    config = compose_typed([*words, "generator.batch_size=4", "tracking=local", f"paths.outputs_dir={tmp_path}"])
    stage = line_of(config, config.dataset.load()).generate
    assert stage is not None
    shell = Generate(config=config, dataset=None, fitted=stage.fitted)  # type: ignore[arg-type]
    maker = Maker(shell, WorkingPrior(config=config), Artefact(folder=None))
    wanted = {variant.fingerprint: variant for variant in stage.images(2)}
    assert maker.variants.keys() == wanted.keys() and len(wanted) == 20
    names, each = list(wanted), config.generator.forward_passes([next(iter(wanted.values()))]).count
    assert maker({"images": [" ".join(names[:7])]}) == {"images": [7], "made": [7], "evaluations": [7 * each]}
    assert config.paths.store.known(names) == set(names[:7])
    rest = maker({"images": [" ".join(names[:10]), " ".join(names[10:])]})
    assert rest == {"images": [20], "made": [13], "evaluations": [13 * each]}
    assert config.paths.store.known(names) == set(names)
