"""Does erasing "seven" from the tiny prior erase seven, and only seven?

    python benchmarks/erasure_tiny.py ../shared/data          # the folder that holds mnist/

Samples every digit from pure noise under "a photo of a <digit>" with the prior as it is and with the erased U-Net; a support
vector machine trained on MNIST names them. Exits with an error unless the share of sevens falls to a quarter or less while
every other digit keeps at least nine tenths of its own.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.svm import SVC

from genaug.app import compose_typed
from genaug.generators.erasure import erase
from genaug.generators.sdedit import make_scheduler, noise
from genaug.priors.corpus import DIGIT_WORDS
from genaug.priors.deltas import applied
from genaug.priors.measure import mnist_test
from genaug.priors.prior import Prior
from genaug.seeding import derive


@torch.no_grad()
def sample(prior: Prior, prompts: list[str], guidance: float, num_steps: int = 25) -> torch.Tensor:
    """One picture per prompt, [n, 3, h, w] in [0, 1], from noise that depends on its place alone."""
    schedule = make_scheduler("ddim", prior.betas)
    schedule.set_timesteps(num_steps)
    side = prior.image_size // prior.vae_factor
    pictures = []
    for start in range(0, len(prompts), 100):
        batch = prompts[start : start + 100]
        z = torch.stack([noise(derive("erasure", start + i), (4, side, side)) for i in range(len(batch))])
        z, cond, uncond = z.to(prior.device), prior.embed(batch), prior.embed([""])
        for t in schedule.timesteps:
            z = schedule.step(prior.predict_noise(z, t, cond, uncond, guidance), t, z, return_dict=False)[0]
        pictures.append((prior.decode(z) / 2 + 0.5).clamp(0, 1).cpu())
    return torch.cat(pictures)


def features(pictures: torch.Tensor) -> np.ndarray:
    """Grey values at 16 px, [n, 256], of pictures [n, 3, 32, 32] in [0, 1]."""
    return F.avg_pool2d(pictures.mean(1, keepdim=True), 2).flatten(1).numpy()


def shares(prior: Prior, classifier: SVC, num_images: int, guidance: float) -> torch.Tensor:
    """Share of each digit's pictures that the classifier names so, [10]."""
    labels = torch.arange(10).repeat_interleave(num_images)
    pictures = sample(prior, [f"a photo of a {DIGIT_WORDS[label]}" for label in labels.tolist()], guidance)
    right = torch.from_numpy(classifier.predict(features(pictures))) == labels
    return torch.stack([right[labels == digit].float().mean() for digit in range(10)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds mnist/")
    parser.add_argument("--concept", default="seven", choices=DIGIT_WORDS)
    parser.add_argument("--images", type=int, default=50, help="per digit")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--prior", default="tiny", help="tiny, or a folder")
    parser.add_argument("overrides", nargs="*", help="e.g. leakage.erasure.iterations=200")
    arguments = parser.parse_args()
    config = compose_typed([f"prior.path={arguments.prior}", "leakage=model_centric", *arguments.overrides])
    erasure = config.leakage.erasure
    assert erasure is not None
    prior = config.prior.load("cpu")
    images, labels = mnist_test(arguments.data)  # the prior has seen MNIST train, so the test part judges it
    classifier = SVC(C=5.0).fit(features(images[:4000]), labels[:4000].numpy())
    accuracy = classifier.score(features(images[4000:6000]), labels[4000:6000].numpy())
    print(f"classifier: {accuracy:.3f} on 2,000 further images of MNIST test", flush=True)
    before = shares(prior, classifier, arguments.images, arguments.guidance)
    start = time.perf_counter()
    delta, about = erase(prior, arguments.concept, erasure)
    print(
        f"erased in {time.perf_counter() - start:.1f} s: loss {about['loss_first_tenth']:.4f} to "
        f"{about['loss_last_tenth']:.4f}, {about['num_weights']} weights"
    )
    with applied(prior.unet, delta):
        after = shares(prior, classifier, arguments.images, arguments.guidance)
    print("digit   before  after  kept")
    for word, b, a in zip(DIGIT_WORDS, before.tolist(), after.tolist(), strict=True):
        print(f"{word:6s}  {b:6.2f}  {a:5.2f}  {a / max(b, 1e-9):4.2f}")
    kept = after / before.clamp(min=1e-9)
    index = DIGIT_WORDS.index(arguments.concept)
    others = torch.cat([kept[:index], kept[index + 1 :]])
    if kept[index] > 0.25 or others.min() < 0.9:
        share = f"{kept[index]:.2f} of {arguments.concept} kept, others at least {others.min():.2f}"
        raise SystemExit(f"not erased cleanly: {share}")


if __name__ == "__main__":
    main()
