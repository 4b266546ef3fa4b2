"""An online generator: what its cell's identity holds, what is refused, and that training sees its batches."""

import pytest

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.runs.cell import cell_fingerprint


def identity(*overrides: str) -> str:
    return cell_fingerprint(compose_typed(["generator=latent_interpolation", *overrides]))


def test_the_generator_is_part_of_an_online_cell_and_the_mix_is_not():
    online = identity("generator.online=true")
    assert online != identity("generator.online=false")
    assert online != identity("generator.online=true", "generator.mixing.lam=0.3")
    assert online != identity("generator=none")
    assert online == identity("generator.online=true", "mix.m=3", "mix.alpha=0.2")


def test_a_fit_without_prior_is_a_cell_of_its_generator():
    assert identity("task=fit") != identity("task=fit", "generator.networks.z_dim=9")


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["task=generate", "generator.online=true"], r"publishes no images.*generator\.online=false"),
        (["mix=synthetic_only", "generator.online=true"], r"leaves nothing to train on.*generator\.online=false"),
        (["task=generate", "generator=none"], "publishes no images"),
    ],
)
def test_what_needs_published_images_is_refused(overrides, message):
    with pytest.raises(GenaugError, match=message):
        compose_typed(["generator=latent_interpolation", *overrides]).check()


@pytest.mark.parametrize("lam", ["1.5", "-0.1"])
def test_lambda_outside_its_range_is_refused_on_the_command_line(lam):
    with pytest.raises(GenaugError, match="would be extrapolation"):
        compose_typed(["generator=latent_interpolation", f"generator.mixing.lam={lam}"])


def test_online_and_pool_run_from_one_fit(train):
    small = [
        "generator.training.num_steps=4",
        "generator.networks.z_dim=4",
        "generator.networks.channels=4",
        "downstream.num_steps=4",
        "mix.m=1",
    ]
    output = train("-m", "generator=latent_interpolation", "generator.online=true,false", "tracking=local", *small)
    assert output.count("fitting latent_interpolation") == 1
    assert output.count("fitted already: latent_interpolation") == 1
    results = sorted(train.outputs.glob("runs/*/result.json"))
    assert len(results) == 2
    assert sum('"hole/ks_max"' in result.read_text() for result in results) == 2
