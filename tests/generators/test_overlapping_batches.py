"""Batches that overlap, as they do on a GPU, give the same images as batches one after the other."""

import threading

import pytest

from genaug.composition import compose_typed
from genaug.generators.diff_ii import circle
from genaug.generators.dreamda import batches as dreamda
from genaug.generators.latent_interpolation import images as latent_interpolation
from genaug.generators.psld import inpaint
from genaug.generators.sdedit import sampler
from genaug.priors.overlap import overlapped

MODULES = (sampler, inpaint, dreamda, circle, latent_interpolation)
SCENES = ("dataset=digit_scenes", "dataset.image_size=32", "dataset.num_train=5")
CASES: dict[str, tuple[str, ...]] = {
    "real_guidance": (),
    "vae_reconstruction": (),
    "dreamda": (),
    "dreamda-fresh": ("generator.source_codes=fresh", "generator.encode=sample"),
    "diff_ii": (
        *("generator.inversion_steps=2", "generator.tokens.num_steps=1", "generator.tokens.batch_size=1"),
        *("generator.lora.num_steps=1", "generator.lora.batch_size=1"),
    ),
    "latent_interpolation_prior_vae": (),
    "psld_reference": (*SCENES, "generator.solver.reference_shift=false"),
    "psld_fast": (*SCENES, "generator.audit.by=none"),
}
STEPLESS = ("vae_reconstruction", "latent_interpolation_prior_vae")


@pytest.mark.parametrize("case", CASES)
def test_they_do_until_the_end_and_until_a_batch_fails(case, prior, dataset, tmp_path, monkeypatch):
    words = ["generator.batch_size=2", *(["generator.num_steps=4"] if case not in STEPLESS else [])]
    config = compose_typed([f"generator={case.split('-')[0]}", *words, *CASES[case]])
    generator = config.generator
    if generator.component_name == "psld":
        dataset = config.dataset.load()
    fitted = tmp_path if generator.fits else None
    if fitted is not None:
        generator.fit(dataset, prior, fitted)
    wanted = [generator.variant_of(source, j, dataset, "fit") for source in dataset.train[:3] for j in range(2)]
    decode, calls, lengths = prior.vae.decode, [], []

    def made(fail_at: int | None) -> tuple[list[object], str]:
        """The images that came, and what ended them."""

        def counted(*arguments, **named):
            calls.append(None)
            if len(calls) == fail_at:
                raise RuntimeError("the device is lost")
            return decode(*arguments, **named)

        calls.clear()
        monkeypatch.setattr(prior.vae, "decode", counted)
        came, threads = [], threading.active_count()
        try:
            for item in generator.generate(wanted, dataset, prior, fitted):
                came.append((item.variant.fingerprint, item.image.tobytes(), item.rejected, item.about))
        except RuntimeError as error:
            assert threading.active_count() == threads
            return came, str(error)
        assert threading.active_count() == threads
        return came, "the end"

    def forced(batches, prepare, launch, device):
        lengths.append(len(batches))
        return overlapped(batches, prepare, launch, "cuda")

    whole, end = made(None)
    assert len(whole) == len(wanted) and end == "the end"
    last = len(calls)
    broken, end = made(last)
    assert 0 < len(broken) < len(whole) and broken == whole[: len(broken)] and end == "the device is lost"
    for module in MODULES:
        monkeypatch.setattr(module, "overlapped", forced)
    assert made(None) == (whole, "the end") and max(lengths) >= 3
    assert made(last) == (broken, "the device is lost")
