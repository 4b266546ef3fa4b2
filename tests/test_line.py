"""Which stages a run needs, and what their keys depend on."""

from pathlib import Path

import pytest

from genaug.composition import compose_typed
from genaug.core.cost import ForwardPasses
from genaug.core.identity import Texts
from genaug.generators.sdedit.da_fusion import DAFusion
from genaug.line import Line, line_of
from genaug.stages import UNET, Artefact, Train, WorkingPrior


def line(*words: str, texts: Texts | None = None) -> Line:
    config = compose_typed(["dataset.shots=1", "tracking=local", *words])
    return line_of(config, config.dataset.load(), texts)


@pytest.mark.parametrize(
    ("words", "stages"),
    [
        (("generator=none",), ["train"]),
        (("generator=real_guidance", "filter=none"), ["fit", "generate", "train"]),
        (("generator=real_guidance", "filter=blank"), ["fit", "generate", "filter", "train"]),
        (("generator=real_guidance", "filter=blank", "task=generate"), ["fit", "generate"]),
        (("generator=da_fusion", "task=fit"), ["fit"]),
        (("generator=da_fusion", "leakage=model_centric", "task=fit"), [*["erase"] * 10, "fit"]),
        (("generator=control", "leakage=model_centric", "task=fit"), ["fit"]),
        (("generator=latent_interpolation_pixel", "generator.online=true"), ["fit", "interpolate", "train"]),
        (("generator=latent_interpolation_pixel", "generator.online=true", "task=generate"), ["fit", "generate"]),
    ],
)
def test_a_run_has_the_stages_that_its_task_and_components_need(words: tuple[str, ...], stages: list[str]) -> None:
    found = line(*words)
    assert [stage.name for stage in found] == stages
    assert found.places == [stage.place for stage in found if stage.place is not None]


def test_classes_without_training_images_are_not_erased() -> None:
    words = ["generator=da_fusion", "leakage=model_centric", "task=fit", "dataset.shots=null", "dataset.fraction=0.005"]
    found = line(*words)
    assert found.fit is not None
    present = {sample.class_index for sample in found.fit.dataset.train}
    assert len(found.erase) == len(present) < 10


def test_an_erasure_is_that_of_its_prior_and_texts_that_runs_share_mix_up_no_prior() -> None:
    erased = ("generator=da_fusion", "leakage=model_centric", "task=fit")
    one, other = (line(*erased, f"prior.image_size={size}").erase[0].key for size in (32, 64))
    assert one != other
    texts = Texts()
    line("generator=control", "task=fit", texts=texts)
    shared, alone = (line("generator=real_guidance", "task=fit", texts=known).fit for known in (texts, None))
    assert shared is not None and alone is not None and shared.key == alone.key


def test_evaluations_count_where_something_was_made_and_a_stated_cost_is_kept(tmp_path: Path) -> None:
    about = {"network_evaluations": 5}
    assert [Artefact(folder=tmp_path, about=about, is_new=new).evaluations for new in (True, False)] == [5, 0]
    stage = Train(config=compose_typed(["generator=none"]))
    assert stage._priced(ForwardPasses(network=UNET, count=1, gflop=3.0)).gflop == 3.0
    assert (stage._priced(ForwardPasses(network=UNET, count=1)).gflop or 0) > 0
    online = ("generator=latent_interpolation_pixel", "generator.online=true", "generator.mixing.keep_real=true")
    plain, mixed = (line(*words).train for words in (("generator=none",), online))
    assert plain is not None and mixed is not None
    assert mixed.forward_passes()[0].count == 2 * plain.forward_passes()[0].count  # each image, and one mixed with it


def test_a_fit_that_resumed_states_its_evaluations_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, about in enumerate(({"network_evaluations": 99}, {})):
        monkeypatch.setattr(DAFusion, "fit", lambda *args, about=about: about)
        fit = line("generator=da_fusion", "task=fit", f"paths.outputs_dir={tmp_path / str(number)}").fit
        assert fit is not None
        made = fit.make(WorkingPrior(config=fit.config), lambda text: None)
        assert made.is_new and made.evaluations == about.get("network_evaluations", 0)
