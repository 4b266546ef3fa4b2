"""The presets of generators, tokens, priors and leakage compose and state the papers' values."""

import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from genaug.config_source import register
from genaug.core.errors import GenaugError
from tests.generators.conftest import make_dataset


def generator(*overrides: str, leakage: str = "data_centric"):
    with initialize_config_dir(str(register()), version_base="1.3"):
        config = compose(overrides=[*overrides, "+seed=0", f"+leakage={leakage}"])
    built = OmegaConf.to_object(config)
    assert isinstance(built, dict)
    return built["generator"]


def test_paper_presets_state_the_papers_values():
    paper = generator("+generator=da_fusion_paper")
    assert (paper.t0, paper.num_steps, paper.guidance) == ([0.25, 0.5, 0.75, 1.0], 50, 7.5)
    tokens = paper.tokens
    assert (tokens.init, tokens.num_vectors, tokens.batch_size, tokens.num_steps) == ("the", 1, 4, 1000)
    assert tokens.learning_rate == pytest.approx(5e-4 * tokens.batch_size) and tokens.weight_decay == 1e-2
    tokens = generator("+generator=da_fusion_iclr", leakage="none").tokens
    assert (tokens.init, tokens.num_vectors, tokens.batch_size, tokens.num_steps) == ("class_name", 4, 8, 2000)
    assert tokens.learning_rate == pytest.approx(5e-4 * tokens.batch_size)
    assert generator("+generator=da_fusion_reference").scheduler == "pndm_ref"
    assert generator("+generator=da_fusion_fixed").t0 == 0.5
    he = generator("+generator=real_guidance_he2022")
    assert he.t0 is None and he.t0_by_shots == {1: 0.5, 2: 0.4, 4: 0.35, 8: 0.2, 16: 0.15}
    assert (generator("+generator=real_guidance_da_fusion").t0, generator("+generator=real_guidance_low").t0) == (
        0.5,
        0.1,
    )


@pytest.mark.parametrize("preset", ["da_fusion", "real_guidance", "real_guidance_he2022"])
@pytest.mark.parametrize("text, value", [("0.3", 0.3), ("[0.3,0.6]", [0.3, 0.6])])
def test_t0_is_overridden_by_a_number_or_a_list(preset, text, value):
    assert generator(f"+generator={preset}", f"generator.t0={text}").t0 == value


@pytest.mark.parametrize(
    ("preset", "drawn"),
    [
        ("da_fusion", ("t0",)),
        ("diagen", ("token_noise",)),
        ("diff_mix", ("target",)),
        ("diff_ii", ("partner", "angle")),
        ("diffuse_mix", ("prompt",)),
        ("gif", ("prompt",)),
        ("latent_interpolation", ("partner_id", "lam")),
    ],
)
def test_another_seed_another_image_and_another_variant_draw_other_values(preset, drawn):
    words = ("generator.mixing.lam=uniform", "+dataset=digits") if "lam" in drawn else ()
    one, other = (generator(f"+generator={preset}", *words, f"generator.seed={n}", leakage="none") for n in (0, 1))
    data = make_dataset()
    for key in drawn:
        rows = [[one.draw(source, j, data)[key] for j in range(8)] for source in data.train]
        assert rows != [[other.draw(source, j, data)[key] for j in range(8)] for source in data.train]
        assert len(set(map(tuple, rows))) > 1 and max(len(set(row)) for row in rows) > 1


def test_token_settings_are_chosen_and_changed_from_the_command_line():
    built = generator("+generator=da_fusion", "generator/tokens=ti_preprint", "generator.tokens.num_vectors=2")
    assert (built.tokens.num_steps, built.tokens.num_vectors) == (1000, 2)


def test_class_name_tokens_need_leakage_none():
    with pytest.raises(GenaugError, match="leakage=none"):
        generator("+generator=da_fusion_iclr")


def test_declaring_components_imports_no_torch():
    code = (
        "import sys; from genaug.core.registry import load_components; load_components(); print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.strip() == "False"
