"""The activation of CLIP's text encoder in one pass less is the library's."""

import copy

import torch
from transformers.activations import QuickGELUActivation

from genaug.priors.model import Prior
from genaug.priors.random_weights import random_parts

ROUNDING = 1e-5  # of numbers of about one


def test_features_of_a_prompt_and_their_gradient_are_the_librarys():
    parts = random_parts()
    theirs = copy.deepcopy(parts["text_encoder"]).eval()
    scheduler = parts.pop("scheduler")
    prior = Prior(**parts, scheduler_config=dict(scheduler.config), image_size=32)
    assert any(isinstance(layer, QuickGELUActivation) for layer in theirs.modules())
    assert not any(isinstance(layer, QuickGELUActivation) for layer in prior.text_encoder.modules())

    ids = prior.token_ids(["a photo of a seven", "the digit"])
    found = []
    for encoder in (theirs, prior.text_encoder):
        words = encoder.get_input_embeddings()(ids).detach().requires_grad_()
        features = encoder(input_ids=ids).last_hidden_state
        mlp = next(layer for name, layer in encoder.named_modules() if name.endswith("mlp"))
        (gradient,) = torch.autograd.grad(mlp(words).square().sum(), words)
        found.append((features, gradient))
    for library, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, library, rtol=ROUNDING, atol=ROUNDING)
