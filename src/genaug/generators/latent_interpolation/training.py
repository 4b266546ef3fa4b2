"""Fitting an adversarial autoencoder to training images: batches by step, checkpoints, resumption, weights.

Batch s is a function of (seed, s) alone: which images it holds, how each is shifted and flipped. A run that was interrupted
and resumed therefore ends with the very weights of one that was not.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from lightning_fabric.plugins.environments import LightningEnvironment
from PIL import Image, ImageOps
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from genaug.core.checkpoints import WholeCheckpoints, read_checkpoint
from genaug.core.lightning import quiet_lightning
from genaug.core.progress import Progress
from genaug.core.seeding import choice, derive, uniform
from genaug.data.mixing import Order
from genaug.data.sample import Sample
from genaug.generators.latent_interpolation.networks import AdversarialAutoencoder

CACHE_BYTES = 2 * 2**30  # decoded training images are kept in memory up to this size
WEIGHTS = "autoencoder.safetensors"


def square_pixels(sample: Sample, size: int) -> Tensor:
    """uint8 [3, size, size]: the largest central square, resized (bicubic)."""
    image = sample.open()
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]."""
    return pixels.float() / 255


class Batches(TorchDataset):
    """Item i is (step, images [b, 3, s, s] in [-1, 1]) of step ``start + i``."""

    def __init__(
        self,
        samples: Sequence[Sample],
        image_size: int,
        batch_size: int,
        seed: int,
        max_shift: int = 0,
        flip_prob: float = 0.0,
    ):
        """``max_shift``: images are padded by so many pixels (edges repeated) and cropped at a random place."""
        self.samples, self.image_size, self.batch_size, self.seed = samples, image_size, batch_size, seed
        self.max_shift, self.flip_prob = max_shift, flip_prob
        self.order = Order(len(samples), derive(seed, "batches"))
        self.start, self.stop = 0, 0
        small = len(samples) * 3 * image_size**2 <= CACHE_BYTES
        self.cache = torch.stack([square_pixels(sample, image_size) for sample in samples]) if small else None

    def between(self, start: int, stop: int) -> "Batches":
        """The same batches, restricted to the steps start … stop - 1."""
        part = object.__new__(Batches)
        part.__dict__.update(self.__dict__, start=start, stop=stop)
        return part

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, item: int) -> tuple[int, Tensor]:
        step = self.start + item
        draws = range(step * self.batch_size, (step + 1) * self.batch_size)
        return step, torch.stack([self._image(draw) for draw in draws])

    def _image(self, draw: int) -> Tensor:
        place = self.order[draw]
        pixels = self.cache[place] if self.cache is not None else square_pixels(self.samples[place], self.image_size)
        x = 2 * to_unit(pixels) - 1
        if self.max_shift:
            p, s = self.max_shift, self.image_size
            top, left = (choice(2 * p + 1, self.seed, "shift", axis, draw) for axis in "yx")
            x = F.pad(x[None], (p, p, p, p), mode="replicate")[0, :, top : top + s, left : left + s]
        if self.flip_prob and uniform(self.seed, "flip", draw) < self.flip_prob:
            x = x.flip(2)
        return x


class _Batches(pl.LightningDataModule):
    """One Lightning epoch is the stretch between two checkpoints."""

    def __init__(self, batches: Batches, num_steps: int, stretch: int, num_workers: int):
        super().__init__()
        self.batches, self.num_steps, self.stretch, self.num_workers = batches, num_steps, stretch, num_workers

    def state_dict(self) -> dict[str, Any]:
        return {"stretch": self.stretch}

    def train_dataloader(self) -> DataLoader:
        start = self.trainer.current_epoch * self.stretch if self.trainer is not None else 0
        part = self.batches.between(start, min(start + self.stretch, self.num_steps))
        return DataLoader(part, batch_size=None, num_workers=self.num_workers)


class _Progress(Callback):
    def __init__(self, num_steps: int, say: Callable[[str], None], first: int):
        self.num_steps, self.say = num_steps, say
        self.progress = Progress("training the autoencoder", num_steps, completed=first)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.progress.start()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.progress.stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.progress.stop()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = batch[0] + 1
        self.progress.update(step)
        if step % max(self.num_steps // 10, 1) == 0:
            losses = ", ".join(f"{key} {value:.4f}" for key, value in pl_module.history[-1].items() if key != "step")
            self.say(f"autoencoder: step {step} of {self.num_steps}; {losses}")


def fit_autoencoder(
    aae: AdversarialAutoencoder,
    batches: Batches,
    num_steps: int,
    folder: Path,
    *,
    checkpoint_every: int = 1000,
    device: str,
    num_workers: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Train ``aae`` in place and write its weights to ``folder``, going on from a checkpoint that lies there."""
    stretch = min(checkpoint_every, num_steps)
    checkpoints = folder / "checkpoints"
    last = checkpoints / "last.ckpt"
    progress = _progress_of(last, say)
    first = 0
    if progress is not None:
        epochs, stretch = progress
        first = min(epochs * stretch, num_steps)
        say(f"resuming after step {first} of {num_steps}")
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator=device,
            devices=1,
            max_epochs=-(-num_steps // stretch),
            reload_dataloaders_every_n_epochs=1,
            callbacks=[
                ModelCheckpoint(
                    dirpath=checkpoints, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
                ),
                _Progress(num_steps, say, first),
            ],
            plugins=[WholeCheckpoints(), LightningEnvironment()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(
            aae,
            datamodule=_Batches(batches, num_steps, stretch, num_workers),
            ckpt_path=None if progress is None else last,
            weights_only=True,
        )
    aae.cpu()
    save_weights(aae, folder)
    shutil.rmtree(checkpoints)


def _progress_of(checkpoint: Path, say: Callable[[str], None]) -> tuple[int, int] | None:
    """Epochs behind a checkpoint, and their length: a resumed run keeps it whatever ``checkpoint_every`` is by now."""
    state = read_checkpoint(checkpoint, say)
    return None if state is None else (int(state["epoch"]) + 1, int(state[_Batches.__qualname__]["stretch"]))


def save_weights(aae: AdversarialAutoencoder, folder: Path) -> None:
    save_file({key: value.contiguous() for key, value in aae.state_dict().items()}, folder / WEIGHTS)


def load_weights(aae: AdversarialAutoencoder, folder: Path) -> None:
    """Load what ``save_weights`` wrote; afterwards the networks are frozen and in evaluation mode."""
    aae.load_state_dict(load_file(folder / WEIGHTS))
    aae.eval().requires_grad_(False)
