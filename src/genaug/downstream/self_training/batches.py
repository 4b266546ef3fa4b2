"""What self-training sees in each step: weak and strong views of labelled and unlabelled images, decided by counters."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from genaug.core.seeding import choice, derive, uniform
from genaug.data.augmentation import seeded
from genaug.data.batch_augmentation import BatchAugment
from genaug.data.mixing import Order
from genaug.downstream.classification.batches import Inputs
from genaug.downstream.self_training.config import SelfTraining
from genaug.downstream.self_training.strong_augmentation import StrongView

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """P_L of one phase: rows of the decoded images with their class weights; the real ones come first."""

    rows: Tensor
    targets: Tensor
    num_real: int


class SelfTrainingBatches(Dataset):
    """The views of step ``s``: a function of its number and of the phase's labelled set alone.

    ``labelled``: weak views [B] with ``targets``; ``labelled_strong``; ``auxiliary``: views [V B] of real images for the
    auxiliary heads; ``weak`` [mu B] and ``strong`` [V mu B] views of unlabelled images with their ``index``.
    """

    def __init__(
        self,
        config: SelfTraining,
        inputs: Inputs,
        labelled: Labelled,
        unlabelled: Tensor,
        weak: BatchAugment | None,
        parts: frozenset[str],
    ):
        self.config, self.inputs, self.labelled, self.unlabelled, self.parts = (
            config,
            inputs,
            labelled,
            unlabelled,
            parts,
        )
        self.weak, self.strong = weak, StrongView(config.strong_num_ops)
        seed = config.seed
        # the labelled order is the classifier's own: with nothing accepted both see the same batches
        self.order = Order(len(labelled.rows), seed, config.sampling == "with_replacement")
        self.auxiliary_order = Order(labelled.num_real, derive(seed, "auxiliary"))
        self.unlabelled_order = Order(max(len(unlabelled), 1), derive(seed, "unlabelled"))

    def __getitem__(self, step: int) -> Batch:
        size, batch = self.config.batch_size, {}
        if "supervised" in self.parts:
            draws = range(step * size, (step + 1) * size)
            index = torch.tensor([self.labelled_index(d) for d in draws])
            batch["targets"] = self.labelled.targets[index]
            batch["labelled"] = self.views(self.labelled.rows[index], "weak", ("augment",), draws)
            if self.config.lambda_strong > 0:
                batch["labelled_strong"] = self.views(self.labelled.rows[index], "strong", ("labelled strong",), draws)
        if "auxiliary" in self.parts:
            draws = range(step * size, (step + 1) * size)
            index = torch.tensor([self.auxiliary_order[d] for d in draws])
            batch["auxiliary_targets"] = self.labelled.targets[index]
            batch["auxiliary_weights"] = self.bootstrap_weights(index)
            rows = self.labelled.rows[index]
            batch["auxiliary"] = torch.cat(
                [
                    self.views(rows, kind, ("auxiliary", kind, view), draws)
                    for kind, view in self.config.auxiliary_views()
                ]
            )
        if "unlabelled" in self.parts:
            draws = range(step * size * self.config.mu, (step + 1) * size * self.config.mu)
            batch["index"] = torch.tensor([self.unlabelled_order[d] for d in draws])
            rows = self.unlabelled[batch["index"]]
            batch["weak"] = self.views(rows, "weak", ("unlabelled weak",), draws)
            num_views = 3 if self.config.private_strong_views else 1
            batch["strong"] = torch.cat(
                [self.views(rows, "strong", ("unlabelled strong", view), draws) for view in range(num_views)]
            )
        return batch

    def labelled_index(self, draw: int) -> int:
        """Place in P_L: uniform over it, or real with probability ``fraction_real``."""
        config, num_real = self.config, self.labelled.num_real
        num_given = len(self.labelled.rows) - num_real
        if config.fraction_real is None or num_given == 0:
            return self.order[draw]
        if uniform(config.seed, "real", draw) < config.fraction_real:
            return choice(num_real, config.seed, "index", draw)
        return num_real + choice(num_given, config.seed, "given", draw)

    def views(self, rows: Tensor, kind: str, purpose: tuple[object, ...], draws: range) -> Tensor:
        """One view of each row, uint8 [n, 3, size, size], each from its own seed."""
        images = torch.from_numpy(self.inputs.values[rows.numpy()])
        seeds = [derive(self.config.seed, *purpose, draw) for draw in draws]
        if self.weak is not None:
            images = self.weak(images, seeds)
        if kind == "strong":
            for i, seed in enumerate(seeds):
                with seeded(seed):
                    images[i] = self.strong(images[i])
        return images

    def bootstrap_weights(self, index: Tensor) -> Tensor:
        """How often each head's resample of the real images holds each of them, float [H, n]; ones without a bootstrap."""
        num_heads, n = self.config.num_weak_heads + self.config.num_strong_heads, self.labelled.num_real
        if self.config.head_data == "full":
            return torch.ones(num_heads, len(index))
        weights = []
        for head in range(num_heads):
            generator = torch.Generator().manual_seed(derive(self.config.seed, "bootstrap", head))
            weights.append(torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n)[index].float())
        return torch.stack(weights)
