"""How self-training learns, by whichever of its rules: the phases, the losses, and the labelling of unlabelled images."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from genaug.core.seeding import derive
from genaug.data.sample import Sample
from genaug.downstream.base import TrainingData
from genaug.downstream.classification.batches import Inputs, class_weights, step_loader
from genaug.downstream.classification.module import (
    Learner,
    LightningClassifier,
    Network,
    to_unit,
    train_classifier,
)
from genaug.downstream.classification.scoring import Split, apply_in_batches
from genaug.downstream.decoded import Decoded
from genaug.downstream.learner import seed_device
from genaug.downstream.self_training import pseudo_labels as rules
from genaug.downstream.self_training.batches import Batch, Labelled, SelfTrainingBatches
from genaug.downstream.self_training.config import SELF_TRAINED, SelfTraining
from genaug.downstream.self_training.report import RoundReport, relabelled_sheet
from genaug.downstream.trainer import TrainerConfig

if TYPE_CHECKING:
    from genaug.tracking.record import Record

HEAD_STD = 0.01  # of the auxiliary heads' first weights


class MultiHeadNetwork(Network):
    """The classifier's network, whose head is the main one, with auxiliary heads on the same features."""

    def __init__(self, config: SelfTraining, num_classes: int):
        super().__init__(config, num_classes)
        width = self.head.in_features
        counts = {"multi_head_co_training": 2, "dst": 0} | dict.fromkeys(
            SELF_TRAINED, config.num_weak_heads + config.num_strong_heads
        )
        self.auxiliary = nn.ModuleList()
        for number in range(counts.get(config.label, 0)):
            head = nn.Linear(width, num_classes)
            # each from its own seed: heads that start equal and see the same stay equal
            generator = torch.Generator().manual_seed(derive(config.seed, "head", number))
            nn.init.normal_(head.weight, std=HEAD_STD, generator=generator)
            nn.init.zeros_(head.bias)
            self.auxiliary.append(head)
        self.votes = config.label == "multi_head_co_training"
        if config.label == "dst":
            deep = lambda: nn.Sequential(
                nn.Linear(width, config.dst_width), nn.ReLU(), nn.Linear(config.dst_width, num_classes)
            )
            self.pseudo, self.worst = deep(), deep()

    def new_parameters(self) -> list[nn.Parameter]:
        backbone = {id(p) for p in self.backbone.parameters()}
        return [p for p in self.parameters() if id(p) not in backbone]

    def linear_heads(self) -> list[nn.Linear]:
        """The auxiliary heads: the weak ones first."""
        return [head for head in self.auxiliary if isinstance(head, nn.Linear)]

    def heads(self, features: Tensor) -> list[Tensor]:
        """Logits [b, C] of every auxiliary head."""
        return [head(features) for head in self.auxiliary]

    def forward(self, inputs: Tensor) -> Tensor:
        """The main head alone; for Multi-Head Co-Training the sum of all."""
        features = inputs if inputs.ndim == 2 else self.features(inputs)
        return self.head(features) + sum(self.heads(features)) if self.votes else self.head(features)


class PhasedSteps:
    """Batches from ``trainer.global_step`` on. Before the first step of a round ``begin(round)`` labels the images.

    Lightning asks for a batch only after the step before it, so the labels come from the weights of that moment. Its length
    counts all steps, as Lightning expects of a resumed loader.
    """

    def __init__(self, model: "LightningSelfTraining"):
        self.model = model

    def __len__(self) -> int:
        return self.model.config.num_steps

    def __iter__(self) -> Iterator[Batch]:
        model, config = self.model, self.model.config
        starts = config.round_starts()
        ends = [*starts[1:], config.num_steps]
        phases = [(-1, 0, starts[0]), *((r, starts[r], ends[r]) for r in range(len(starts)))]
        for number, begin, end in phases:
            first = max(begin, model.global_step)
            if first >= end:
                continue
            if number >= 0 and config.label in SELF_TRAINED and int(model.round_number) < number:
                model.give_labels(number)
            yield from step_loader(model.batches(number), first, end, model.trainer_config)


class LightningSelfTraining(LightningClassifier):
    """Loss terms by phase; everything that a resumed run needs is in the checkpoint."""

    config: SelfTraining
    network: MultiHeadNetwork
    round_number: Tensor
    given: Tensor
    last_confident: Tensor
    mean_prediction: Tensor

    def __init__(
        self,
        config: SelfTraining,
        network: MultiHeadNetwork,
        data: TrainingData,
        inputs: Inputs,
        trainer_config: TrainerConfig,
        unlabelled: Sequence[Sample],
        splits: dict[str, Split],
        folder: Path,
        record: "Record",
    ):
        super().__init__(config, network, data, inputs, trainer_config)
        self.unlabelled, self.splits, self.folder, self.record = unlabelled, splits, folder, record
        self.num_classes = len(data.dataset.class_names)
        self.unlabelled_rows = torch.tensor([inputs.rows[sample.id] for sample in unlabelled], dtype=torch.long)
        self.register_buffer("round_number", torch.tensor(-1))
        # class weights given to each unlabelled image; a row of zeros gives none
        self.register_buffer("given", torch.zeros(len(unlabelled), self.num_classes))
        self.register_buffer("last_confident", torch.full((len(unlabelled),), -1))
        self.register_buffer("mean_prediction", torch.full((self.num_classes,), 1 / self.num_classes))
        self.reports: list[dict[str, Any]] = []

    def train_dataloader(self) -> Any:
        return PhasedSteps(self)

    def batches(self, number: int) -> SelfTrainingBatches:
        """Batches of a round, or of pretraining (-1)."""
        config, real = self.config, self.data.dataset.train
        targets = class_weights(real, self.num_classes)
        rows = torch.tensor([self.inputs.rows[sample.id] for sample in real])
        given = class_weights(self.unlabelled, self.num_classes) if config.label == "seed" else self.given.cpu()
        accepted = given.sum(dim=1) > 0
        labelled = Labelled(
            torch.cat([rows, self.unlabelled_rows[accepted]]), torch.cat([targets, given[accepted]]), len(rows)
        )
        transform = self.data.augment.images_transform()
        return SelfTrainingBatches(config, self.inputs, labelled, self.unlabelled_rows, transform, config.parts(number))

    # labelling

    def give_labels(self, number: int) -> None:
        """Label the unlabelled images with the auxiliary heads as they are now, and report on it."""
        config = self.config
        rows = self.unlabelled_rows
        first, last = (
            int(rows.min()),
            int(rows.max()),
        )  # they lie together, after the real images; of two of one id there is one
        heads = self.all_heads(self.inputs.values[first : last + 1])[:, rows - first]
        accepted, labels = rules.accept(heads, config.tau, config.confidence)
        if config.label == "soft":
            given = heads.softmax(dim=2).mean(dim=0)
        else:
            given = rules.given_weights(self.given.cpu(), accepted, labels, config.accumulate)
        self.given.copy_(given)
        self.round_number.fill_(number)
        val = self.splits.get("val")
        report = RoundReport.of(
            number=number,
            step=self.global_step,
            heads=heads,
            accepted=accepted,
            labels=labels,
            seeds=[sample.class_index if sample.label else -1 for sample in self.unlabelled],
            head_names=[f"weak {i + 1}" for i in range(config.num_weak_heads)]
            + [f"strong {i + 1}" for i in range(config.num_strong_heads)],
            val=None if val is None else (self.all_heads(val.inputs.values), val.targets),
            tau=config.tau,
            confidence=config.confidence,
        )
        self.reports.append(report.as_dict())
        self.record.log(report.numbers(), self.global_step)
        for line in report.lines(self.data.dataset.class_names):
            self.record.say(line)
        sheet = relabelled_sheet(self.unlabelled, accepted, labels, self.data.dataset.class_names)
        if sheet is not None:
            sheet.save(self.folder / f"relabelled_{number}.png")

    def all_heads(self, values: Decoded | np.ndarray) -> Tensor:
        """Logits [H, n, C] of the auxiliary heads in evaluation mode, on unaugmented images."""
        stacked: Callable[[Tensor], Tensor] = lambda images: torch.stack(
            self.network.heads(self.network.features(images)), dim=1
        )
        return apply_in_batches(self.network, stacked, values, self.trainer).transpose(0, 1)

    # learning

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:  # type: ignore[override]
        seed_device(self.device, derive(self.config.seed, "batch", self.global_step))
        names = [n for n in ("labelled", "labelled_strong", "auxiliary", "weak", "strong") if n in batch]
        # one forward pass over all views: one set of BatchNorm statistics
        features = self.network.features(torch.cat([to_unit(batch[n]) for n in names]))
        views = dict(zip(names, features.split([len(batch[n]) for n in names]), strict=True))
        terms: dict[str, Tensor] = {}
        facts: dict[str, Tensor] = {}
        if "labelled" in views:
            terms["supervised"] = self.supervised(views, batch["targets"])
        if "weak" in views:
            loss, mask = self.consistency(views, batch)
            terms["unlabelled"] = self.config.lambda_c * loss
            facts["accepted"] = mask.float().mean()
        if "auxiliary" in views:
            weight = self.config.lambda_aux if "labelled" in views else 1.0
            terms["auxiliary"] = weight * self.auxiliary_loss(views["auxiliary"], batch)
            if self.config.lambda_div > 0:
                terms["divergence"] = weight * self.config.lambda_div * self.divergence()
        facts |= {name: term.detach() for name, term in terms.items()}
        return {"loss": torch.stack(list(terms.values())).sum(), **facts}

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets, label_smoothing=self.config.label_smoothing)

    def supervised(self, views: dict[str, Tensor], targets: Tensor) -> Tensor:
        """L_sup of the main head (of all three in co-training), on weak and, if weighted, strong views."""
        loss = torch.zeros((), device=targets.device)
        for name, weight in (("labelled", 1.0), ("labelled_strong", self.config.lambda_strong)):
            if name in views:
                heads = [
                    self.network.head(views[name]),
                    *(self.network.heads(views[name]) if self.network.votes else []),
                ]
                loss = loss + weight * torch.stack([self.cross_entropy(logits, targets) for logits in heads]).sum()
        return loss

    def auxiliary_loss(self, features: Tensor, batch: Batch) -> Tensor:
        """L_pre: each auxiliary head on a view of its kind."""
        config, b = self.config, len(batch["auxiliary_targets"])
        by_view = dict(zip(config.auxiliary_views(), features.split(b), strict=True))
        kinds = [("weak", i) for i in range(config.num_weak_heads)] + [
            ("strong", i) for i in range(config.num_strong_heads)
        ]
        independent = config.head_views == "independent"
        logits = [
            head(by_view[kind, i if independent else 0])
            for head, (kind, i) in zip(self.network.auxiliary, kinds, strict=True)
        ]
        return rules.mean_cross_entropy(logits, batch["auxiliary_targets"], batch["auxiliary_weights"])

    def divergence(self) -> Tensor:
        """L_div: overlap of the heads of one kind."""
        weights = [head.weight for head in self.network.linear_heads()]
        split = self.config.num_weak_heads
        pairs = [
            rules.head_overlap(group[a], group[b])
            for group in (weights[:split], weights[split:])
            for b in range(len(group))
            for a in range(b)
        ]
        return torch.stack(pairs).mean() if pairs else torch.zeros((), device=self.device)

    def consistency(self, views: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss on unlabelled images by the rule of ``config.label``, and which of them it accepted."""
        config, network = self.config, self.network
        if config.label == "multi_head_co_training":
            chunks = views["strong"].chunk(3) if config.private_strong_views else (views["strong"],) * 3
            strong_heads = [head(x) for head, x in zip([network.head, *network.auxiliary], chunks, strict=True)]
            weak_heads = [network.head(views["weak"]), *network.heads(views["weak"])]
            return rules.multi_head_co_training(weak_heads, strong_heads)
        weak, strong = network.head(views["weak"]), network.head(views["strong"])
        if config.label == "flexmatch":
            thresholds = rules.flexmatch_thresholds(
                self.last_confident, self.num_classes, config.tau_c, config.flexmatch_warmup
            )
            loss, mask = rules.fixmatch(weak, strong, thresholds)
            conf, labels = rules.confidence(weak)
            sure = conf >= config.tau_c
            self.last_confident[batch["index"][sure]] = labels[sure]
        elif config.label == "debiasmatch":
            old = self.mean_prediction.clone()
            self.mean_prediction.copy_(rules.debiased_mean(old, weak, config.debias_momentum))
            label_mean = old if config.debias_labels == "old" else self.mean_prediction
            loss, mask = rules.debiasmatch(
                weak, strong, label_mean, self.mean_prediction, config.debias_strength, config.tau_c
            )
        elif config.label == "dst":
            loss, mask = rules.fixmatch(weak, network.pseudo(views["strong"]), config.tau_c)
            strength = rules.reversal_strength(self.global_step)
            worst_l, worst_u = (
                network.worst(rules.ReverseGradient.apply(views[name], strength)) for name in ("labelled", "weak")
            )
            main_l = network.head(views["labelled"])
            loss = loss + rules.dst_worst_case(main_l, worst_l, weak, worst_u, config.dst_weight)
        else:
            loss, mask = rules.fixmatch(weak, strong, config.tau_c)
        return loss, mask

    # record

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["reports"] = self.reports

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.reports = checkpoint["reports"]

    def protocol(self) -> dict[str, Any]:
        """The rounds of labelling."""
        return {"label": self.config.label, "num_unlabelled": len(self.unlabelled), "rounds": self.reports}


def train_self_training(
    config: SelfTraining,
    data: TrainingData,
    unlabelled: Sequence[Sample],
    trainer_config: TrainerConfig,
    folder: Path,
    record: "Record",
) -> dict[str, Any]:
    """Train, select and score; see ``Downstream.train``. The mix is not asked: labelled and unlabelled stay apart."""
    learner = Learner(
        network=lambda: MultiHeadNetwork(config, len(data.dataset.class_names)),
        model=lambda network, inputs, splits: LightningSelfTraining(
            config, network, data, inputs, trainer_config, unlabelled, splits, folder, record
        ),
        samples=(*data.dataset.train, *unlabelled),
    )
    return train_classifier(config, data, trainer_config, folder, record, learner)
