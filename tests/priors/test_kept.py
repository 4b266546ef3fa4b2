"""Deep features of a U-Net used again are those of the last whole evaluation, and nothing stays behind."""

import pytest
import torch

from genaug.priors.model import Prior
from genaug.priors.random_weights import random_parts


@pytest.fixture
def prior():
    parts = random_parts()
    scheduler = parts.pop("scheduler")
    return Prior(**parts, scheduler_config=dict(scheduler.config), image_size=32)


@pytest.fixture
def latents():
    return torch.randn(3, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def shallow(prior, z_before, z, t_before, t, text):
    """What DeepCache says of (z, t): the last layer of the last block anew, on the deep features of (z_before, t_before)."""
    unet, entered = prior.unet, []
    layer, attention = unet.up_blocks[-1].resnets[-1], unet.up_blocks[-1].attentions[-1]
    hook = layer.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    unet(z_before, t_before, encoder_hidden_states=text)
    hook.remove()
    skip = unet.conv_in(z)
    deep = entered[0][:, : -skip.shape[1]]
    time = unet.time_embedding(unet.time_proj(torch.full((len(z),), t)))
    x = attention(layer(torch.cat([deep, skip], dim=1), time), encoder_hidden_states=text, return_dict=False)[0]
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))


def test_between_whole_evaluations_the_last_layer_alone_is_computed(prior, latents):
    text = prior.embed(["a cat", "a dog"])
    plain = [prior.predict_noise(z, t, text) for z, t in zip(latents, (900, 800, 700), strict=True)]
    with prior.sampling(2, cache_interval=2):
        cached = [prior.predict_noise(z, t, text) for z, t in zip(latents, (900, 800, 700), strict=True)]
    assert torch.equal(cached[0], plain[0]) and torch.equal(cached[2], plain[2])
    torch.testing.assert_close(cached[1], shallow(prior, latents[0], latents[1], 900, 800, text))
    assert (cached[1] - plain[1]).abs().max() > 1e-3


def test_another_text_or_batch_begins_with_a_whole_evaluation(prior, latents):
    cats, dogs = prior.embed(["a cat"]), prior.embed(["a dog"])
    calls = [(latents[0], cats), (latents[1], dogs), (latents[2][:1], dogs)]
    plain = [prior.predict_noise(z, 500, text) for z, text in calls]
    with prior.sampling(2, cache_interval=10):
        cached = [prior.predict_noise(z, 500, text) for z, text in calls]
    assert all(torch.equal(a, b) for a, b in zip(cached, plain, strict=True))


def test_whole_evaluations_are_counted_and_nothing_stays_behind(prior, latents):
    text = prior.embed(["a cat"])
    with prior.sampling(2, cache_interval=3):
        for step in range(7):
            prior.predict_noise(latents[step % 3], 900 - step, text)
    assert prior.num_evaluations == 3 * 2  # steps 0, 3 and 6
    assert not any("forward" in vars(layer) for layer in prior.unet.modules())
    with prior.sampling(2):
        first, second = (prior.predict_noise(z, 500, text) for z in latents[:2])
    assert torch.equal(second, prior.predict_noise(latents[1], 500, text)) and not torch.equal(first, second)
    assert prior.num_evaluations == 3 * 2 + 3 * 2


def test_a_compiled_unet_caches_too(prior, latents):
    text = prior.embed(["a cat"])
    with prior.sampling(2, cache_interval=2):
        plain = [prior.predict_noise(z, 500, text) for z in latents]
    prior.unet.compile(backend="eager")
    prior.compiled = "default"
    for _ in range(2):  # a second sampling meets the graphs of the first
        with prior.sampling(2, cache_interval=2):
            compiled = [prior.predict_noise(z, 500, text) for z in latents]
        torch.testing.assert_close(compiled, plain)
