"""A LoRA of SDXL or FLUX.1 learned from the training images: the targets' closed forms, the file, what its images are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genaug.core.errors import GenaugError
from genaug.core.identity import canonical
from genaug.generators.pipeline import images, lora_training
from genaug.generators.pipeline.lora_fit import PipelineLora
from genaug.priors.lora import FILES
from tests.generators.conftest import make_dataset
from tests.generators.pipeline.test_pipeline import pipeline
from tests.generators.pipeline.tiny_pipelines import save


@pytest.fixture(scope="module", params=["sdxl", "flux"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(request.param, tmp_path_factory.mktemp(request.param) / "model")


def lora(**fields: Any) -> PipelineLora:
    return PipelineLora(**{"seed": 0, "rank": 2, "num_steps": 12, "batch_size": 2, "learning_rate": 2e-2, **fields})


def test_it_is_learned_saved_as_diffusers_reads_it_and_changes_the_images(model: Path, tmp_path: Path) -> None:
    data, config = make_dataset(), pipeline(model, lora_fit=lora(), strength=1.0, batch_size=1, num_steps=2)
    assert config.fits and not pipeline(model).fits
    about = config.fit(data, None, tmp_path)
    assert about["network_evaluations"] == 24 and np.isfinite(about["lora"]["loss"]["last_tenth"])
    stored = load_file(tmp_path / FILES[0])
    part = "transformer" if "flux" in str(model) else "unet"
    assert stored and all(name.startswith(f"{part}.") for name in stored)
    assert all(weight.abs().max() > 0 for name, weight in stored.items() if "lora_B" in name)  # every layer has moved
    variant = config.variant_of(data.train[0], 0, data, "w")
    (adapted,) = config.generate([variant], data, None, tmp_path)
    theirs = images.load(pipeline(model, strength=1.0, num_steps=2), "cpu")
    plain = images.call(theirs, config, [variant], data)[0]
    theirs.load_lora_weights(tmp_path, weight_name=FILES[0])
    own = images.call(theirs, config, [variant], data)[0]
    images.unload()
    assert np.array_equal(np.asarray(adapted.image), np.asarray(own))
    assert not np.array_equal(np.asarray(adapted.image), np.asarray(plain))
    again = tmp_path / "again"
    again.mkdir()
    config.fit(data, None, again)
    assert all(torch.equal(weight, stored[name]) for name, weight in load_file(again / FILES[0]).items())


def test_the_target_is_that_of_diffusers_script(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = images.load(pipeline(model), "cpu")
    flux = hasattr(pipe, "transformer")
    features = lora_training.pipe_features(pipe, "a photo of a cat")
    z = torch.randn((2, 4, 16, 16), generator=torch.Generator().manual_seed(1))
    features = {key: torch.cat([value, value]) for key, value in features.items()}
    seen: dict[str, Any] = {}
    denoiser = pipe.transformer if flux else pipe.unet

    def perfect(*given: Any, **named: Any) -> Any:
        seen.update(named)
        seen["given"] = given
        noisy = named["hidden_states"] if flux else given[0]
        return type("Out", (), {"sample": torch.zeros_like(noisy)})

    monkeypatch.setattr(denoiser, "forward", perfect)
    random = torch.Generator().manual_seed(5)
    if flux:
        loss = lora_training.flux_loss(pipe, z, features, random, 3.5)
        again = torch.Generator().manual_seed(5)
        noise = torch.randn(z.shape, generator=again)
        s = torch.sigmoid(torch.randn((2,), generator=again))
        noisy = torch.stack([(1 - s[i]) * z[i] + s[i] * noise[i] for i in range(2)])
        packed = noisy.view(2, 4, 8, 2, 8, 2).permute(0, 2, 4, 1, 3, 5).reshape(2, 64, 16)
        assert torch.equal(seen["hidden_states"], packed) and torch.equal(seen["timestep"], s)
        assert loss.item() == pytest.approx((noise - z).square().mean().item(), rel=1e-5)
    else:
        loss = lora_training.sdxl_loss(pipe, z, features, random)
        again = torch.Generator().manual_seed(5)
        noise = torch.randn(z.shape, generator=again)
        t = torch.randint(1000, (2,), generator=again)
        betas = torch.linspace(pipe.scheduler.config.beta_start, pipe.scheduler.config.beta_end, 1000)
        alpha_bar = torch.cumprod(1 - betas, 0)[t].view(2, 1, 1, 1)
        assert torch.allclose(seen["given"][0], alpha_bar.sqrt() * z + (1 - alpha_bar).sqrt() * noise, atol=1e-5)
        assert torch.equal(seen["given"][1], t) and loss.item() == pytest.approx(noise.square().mean().item(), rel=1e-5)
        assert seen["added_cond_kwargs"]["time_ids"].tolist() == [[32, 32, 0, 0, 32, 32]] * 2


def test_another_family_is_refused_and_another_model_has_a_lora_of_its_own(tmp_path: Path) -> None:
    data = make_dataset()
    with pytest.raises(GenaugError, match=r"trains SDXL and FLUX\.1, not StableDiffusionImg2ImgPipeline"):
        pipeline(lora_fit=lora()).fit(data, None, tmp_path)
    assert "lora_fit" not in canonical(pipeline())  # what it was before keeps its identity
    plain = pipeline(lora_fit=lora()).fit_fingerprint(data, None)
    for other in ({"prompt": "one {name}"}, {"dtype": "bfloat16"}, {"lora_fit": lora(rank=3)}, {"image_size": 64}):
        assert pipeline(**{"lora_fit": lora(), **other}).fit_fingerprint(data, None) != plain
    for same in ({"strength": 0.25}, {"num_steps": 8}, {"batch_size": 1}):
        assert pipeline(**{"lora_fit": lora(), **same}).fit_fingerprint(data, None) == plain
    images.unload()
