"""The demo end to end against a plain script: diffusers one image at a time, one inversion per class, a plain training loop.

Both sides are one process each, imports included: three trainings on one real digit per class, without generated images, with
those of Real Guidance and with those of DA-Fusion. The plain script (``plain`` in this file) has what one would write for
this one case: no store, no resumption, no record, no table. Shorter than the demo by ``--images``, ``--token-steps`` and
``--steps``, on both sides alike.

    python -m benchmarks demo [--images 1] [--token-steps 20] [--steps 100]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MOST_APART = 0.2
"""Of the accuracy: one short training on 40 images, on other draws."""


def plain(options: argparse.Namespace) -> dict[str, Any]:
    """The whole script; returns the number of images and the accuracies."""
    import timm
    import torch
    from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
    from torch import nn
    from torch.nn import functional
    from torchvision.transforms.functional import pil_to_tensor

    from benchmarks.training import jittered
    from genaug.data.sources.digits import Digits
    from genaug.priors.config import PriorConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    data = Digits(name="digits", shots=1, seed=0, image_size=32).load()
    real = [(sample.open(), sample.class_index) for sample in data.train]
    folder = PriorConfig(image_size=32).folder
    pipeline: Any = StableDiffusionImg2ImgPipeline.from_pretrained(
        folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)

    def pixels(pictures: list[Any]) -> torch.Tensor:
        return torch.stack([pil_to_tensor(picture) for picture in pictures])

    def edit(picture: Any, strength: float, prompt: str, embedding: torch.Tensor | None = None) -> Any:
        words: dict[str, Any] = {"prompt": prompt} if embedding is None else {"prompt_embeds": embedding}
        output = pipeline(image=picture, strength=strength, num_inference_steps=25, guidance_scale=2.0, **words)
        return output.images[0]

    def embed(prompt: str, vector: torch.Tensor) -> torch.Tensor:
        """Text features of a prompt whose word ``the`` is the learned token."""
        tokens = pipeline.tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
        table = pipeline.text_encoder.get_input_embeddings()
        place = pipeline.tokenizer("the", add_special_tokens=False).input_ids[0]
        weight = table.weight.detach().clone().index_put((torch.tensor([place]),), vector)
        return torch.func.functional_call(pipeline.text_encoder, {names[table]: weight}, (tokens,)).last_hidden_state

    names = {module: f"{name}.weight" for name, module in pipeline.text_encoder.named_modules()}
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
    alphas = pipeline.scheduler.alphas_cumprod

    def learn_token(pictures: list[Any]) -> torch.Tensor:
        """Textual inversion of one class; images are encoded at every step."""
        table = pipeline.text_encoder.get_input_embeddings().weight
        place = pipeline.tokenizer("the", add_special_tokens=False).input_ids[0]
        vector = nn.Parameter(table[place].detach().clone())
        optimizer = torch.optim.AdamW([vector], lr=2e-3, weight_decay=1e-2)
        for _ in range(options.token_steps):
            images = pixels(random.choices(pictures, k=4)).float() / 127.5 - 1
            z = pipeline.vae.encode(images).latent_dist.sample() * pipeline.vae.config.scaling_factor
            eps, t = torch.randn_like(z), torch.randint(1000, (4,))
            a = alphas[t].view(-1, 1, 1, 1)
            text = torch.cat([embed(random.choice(TEMPLATES), vector) for _ in range(4)])
            predicted = pipeline.unet(a.sqrt() * z + (1 - a).sqrt() * eps, t, text).sample
            optimizer.zero_grad()
            functional.mse_loss(predicted, eps).backward()
            optimizer.step()
        return vector.detach()

    def accuracy(generated: list[tuple[Any, int]] | None) -> float:
        """A training; with generated images, half of the draws are of them."""
        torch.manual_seed(0)
        network = timm.create_model("test_resnet", num_classes=10)
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
        images, labels = pixels([p for p, _ in real]), torch.tensor([c for _, c in real])
        others = images if generated is None else pixels([p for p, _ in generated])
        for _ in range(options.steps):
            rows = torch.randint(len(real), (32,))
            batch = images[rows]
            if generated is not None:  # a variant of the same source
                variants = others[rows * options.images + torch.randint(options.images, (32,))]
                batch = torch.where(torch.rand(32, 1, 1, 1) < 0.5, variants, batch)
            batch = jittered(batch.float() / 255, 20.0, 0.1, 0.1)
            loss = functional.cross_entropy(network((batch - 0.5) / 0.5), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        network.eval()
        with torch.no_grad():
            test = pixels([sample.open() for sample in data.test]).float() / 127.5 - 1
            found = torch.cat([network(part) for part in test.split(128)]).argmax(1)
        return float((found == torch.tensor([sample.class_index for sample in data.test])).float().mean())

    accuracies = [accuracy(None)]
    guided = [(edit(p, 0.5, "a photo"), c) for p, c in real for _ in range(options.images)]
    accuracies.append(accuracy(guided))
    tokens = [learn_token([p for p, c in real if c == label]) for label in range(10)]
    texts = [embed("a photo of a the", token) for token in tokens]
    levels = (0.25, 0.5, 0.75, 1.0)
    fused = [(edit(p, random.choice(levels), "", texts[c]), c) for p, c in real for _ in range(options.images)]
    accuracies.append(accuracy(fused))
    return {"images": len(guided) + len(fused), "accuracies": accuracies}


TEMPLATES = (
    "a photo of a the", "a rendering of a the", "a cropped photo of the the", "the photo of a the", "a photo of a clean the",
    "a photo of a dirty the", "a dark photo of the the", "a photo of my the", "a photo of the cool the",
    "a bright photo of the the",
)  # fmt: skip


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """The same three runs by genaug, into an empty store."""
    from genaug.api import run

    with tempfile.TemporaryDirectory() as outputs:
        common = ["experiment=demo/compare", "seed=0", "tracking=local", f"mix.m={options.images}"]
        common += [f"downstream.num_steps={options.steps}", "trainer.num_threads=1", f"paths.outputs_dir={outputs}"]
        tokens = f"generator.tokens.num_steps={options.token_steps}"
        runs = (["generator=none"], ["generator=real_guidance"], ["generator=da_fusion", tokens])
        results = [run([*common, *words]) for words in runs]
        images = len(list(Path(outputs).glob("store/images/*/*")))
    return {"images": images, "accuracies": [result["metrics"]["test/accuracy_micro"] for result in results]}


def in_a_process(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """What one side says, from a process of its own."""
    words = [f"--images={options.images}", f"--token-steps={options.token_steps}", f"--steps={options.steps}"]
    command = [sys.executable, "-m", "benchmarks", "demo", f"--side={side}", *words]
    environment = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1, help="per training image (the demo: 5)")
    parser.add_argument("--token-steps", type=int, default=20, help="of each token (the demo: 200)")
    parser.add_argument("--steps", type=int, default=100, help="of each training (the demo: 400)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", choices=("ours", "plain"), help="run one side and print what came out")
    options = parser.parse_args()
    if options.side:
        print(json.dumps((ours if options.side == "ours" else plain)(options)))
        return
    from benchmarks.measure import Different, Side, compare, say, write

    def same(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
        apart = [abs(a - b) for a, b in zip(ours["accuracies"], theirs["accuracies"], strict=True)]
        if ours["images"] != theirs["images"] or max(apart) > MOST_APART:
            raise Different(f"{ours} is not {theirs}")
        accuracies = [" ".join(f"{value:.2f}" for value in side["accuracies"]) for side in (ours, theirs)]
        return f"{ours['images']} images each; test accuracies {accuracies[0]} and {accuracies[1]}"

    row = compare(
        f"the demo with {options.images} images per source, {options.token_steps} steps per token, {options.steps} of training",
        Side("genaug, in one process", lambda: in_a_process("ours", options)),
        Side("a plain script", lambda: in_a_process("plain", options)),
        same,
        repeats=options.repeats,
    )
    print(say(row))
    write("demo", [row])


if __name__ == "__main__":
    main()
