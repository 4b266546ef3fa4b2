"""PSLD from variants to finished images: sample, paste back, let a detector of the real images look, decide."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from genaug.data.augmentation import Augment
from genaug.data.mixing import RealOnly
from genaug.data.sample import Dataset, Sample
from genaug.downstream.base import TrainingData
from genaug.downstream.detection.batches import BoxedImages
from genaug.downstream.detection.config import Detector
from genaug.downstream.detection.module import detect, make_model
from genaug.downstream.detection.network import build_network, first_label
from genaug.downstream.trainer import TrainerConfig
from genaug.downstream.training import build_trainer, fit, quiet_lightning
from genaug.generators.base import Generated, Variant
from genaug.generators.psld.labels import Policy, Verdict, decide, paste, paste_weights
from genaug.generators.psld.masks import SPECKLED
from genaug.generators.psld.sampling import Frame, make_frame, sample_frames
from genaug.priors.model import Prior
from genaug.tracking.record import Record

if TYPE_CHECKING:
    from genaug.generators.psld.config import Psld

TEACHER = "teacher.pt"
MIN_STORED_SCORE = 0.1  # detections that the manifest keeps, so that thresholds can be swept afterwards


def train_teacher(config: Detector, dataset: Dataset, folder: Path, device: str) -> dict[str, Any]:
    """Train the audit's detector on ``dataset.train`` alone and write its weights."""
    fold = dataclasses.replace(dataset, val=(), test=())
    data = TrainingData(dataset=fold, mix=RealOnly(name="real_only"), pool=None, augment=Augment(shift=0.1, zoom=0.2))
    trainer = TrainerConfig(accelerator="gpu" if device == "cuda" else device)
    with torch.random.fork_rng(devices=[]), quiet_lightning():
        record = Record(folder)
        model = make_model(config, data, BoxedImages(config.image_size), trainer)
        fit(build_trainer(trainer, config.num_steps, folder, record, "teacher", []), model, folder, record)
    torch.save(model.scored.state_dict(), folder / TEACHER)
    (folder / "checkpoints" / "resume.ckpt").unlink(missing_ok=True)
    return {"teacher": config.architecture, "num_steps": config.num_steps, "images": len(fold.train)}


class Audit:
    """A trained detector that looks at synthetic pictures."""

    def __init__(self, config: Detector, num_classes: int, folder: Path, device: torch.device):
        self.config, self.device = config, device
        self.network = build_network(config, num_classes)
        self.network.load_state_dict(torch.load(folder / TEACHER, map_location="cpu", weights_only=True))
        self.network.to(device).eval()

    def look(self, name: str, pixels: np.ndarray) -> dict[str, Any]:
        """Detections on uint8 [h, w, 3]: ``{"boxes", "scores", "labels"}`` in its pixels."""
        sample = Sample(id=name, digest=name, image=pixels)
        images = BoxedImages(self.config.image_size)
        return detect(self.network, [sample], images, first_label(self.config), self.device)[0]


def inpaint(
    config: "Psld", variants: list[Variant], dataset: Dataset, prior: Prior, fitted: Path | None
) -> Iterator[Generated]:
    """The image of every variant; those that must not be trained on say why."""
    multiple = 2 ** (len(prior.vae.config.block_out_channels) + len(prior.unet.config.block_out_channels) - 2)
    audit = None
    if fitted is not None and dataset.task == "detection":
        audit = Audit(config.teacher, len(dataset.class_names), fitted, prior.device)
    wanted = []
    for variant in variants:
        frame = make_frame(config, variant, prior.image_size, multiple)
        if frame.rejected is None:
            wanted.append(frame)
        else:
            verdict = Verdict(frame.source, frame.boxes, frame.rejected)
            yield _generated(frame, verdict, {})
    for frame, pixels, about in sample_frames(config, wanted, prior):
        inside, paste_back = pasted_region(config, frame)
        weights = paste_weights(frame.mask, inside, paste_back, frame.kept, config.margin)
        found = None
        if audit is not None and frame.boxes is not None and config.label_policy == "guarded":
            found = audit.look(frame.variant.fingerprint, paste(pixels, frame.source, weights))
            about["audit"] = [
                {"bbox": [round(v, 2) for v in box], "score": score, "category": dataset.class_names[label]}
                for box, score, label in zip(found["boxes"], found["scores"], found["labels"], strict=True)
                if score >= MIN_STORED_SCORE and 0 <= label < len(dataset.class_names)
            ]
        policy = Policy(
            label_policy=config.label_policy,
            exact_fraction=config.exact_fraction,
            on_unconfirmed=config.on_unconfirmed,
            confirm_score=config.confirm_score,
            on_hallucination=config.on_hallucination,
            hallucination_score=config.hallucination_score,
            min_change=config.min_change,
        )
        verdict = decide(pixels, frame.source, frame.mask, weights, frame.boxes, found, policy, config.margin)
        yield _generated(frame, verdict, about)


def pasted_region(config: "Psld", frame: Frame) -> tuple[np.ndarray, str]:
    """Where known pixels may be put back (bool [h, w]), and how.

    A solid mask's known part goes back as it is. Scattered known pixels in a slightly different surround would be speckle:
    of those, only the boxes go back, which ``random_entirepainting`` and ``random`` do not keep.
    """
    everywhere = np.ones_like(frame.inside)
    if frame.mask_type not in SPECKLED or config.paste_region == "known":
        return everywhere, config.paste_back
    if frame.mask_type == "random_outpainting":
        return frame.inside, config.paste_back
    return everywhere, "none"


def _generated(frame: Frame, verdict: Verdict, about: dict[str, Any]) -> Generated:
    return Generated(
        variant=frame.variant,
        image=Image.fromarray(verdict.pixels),
        boxes=verdict.boxes,
        about={
            "mask": frame.mask_type,
            "mask_seed": frame.mask_seed,
            "known": round(float(frame.mask.mean()), 4),
            **about,
            **verdict.about,
        },
        rejected=verdict.rejected,
    )
