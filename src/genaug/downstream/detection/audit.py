"""A detector that learns from the real training images and then looks at synthetic ones (``generators.base.Auditor``)."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genaug.core.lightning import quiet_lightning
from genaug.core.store import Store
from genaug.data.augmentation import Augment
from genaug.data.detections import Detections
from genaug.data.mixing import RealOnly
from genaug.data.sample import Dataset, Sample
from genaug.downstream.base import TrainingData
from genaug.downstream.detection.batches import BoxedImages
from genaug.downstream.detection.config import Detector
from genaug.downstream.detection.module import detect, make_model
from genaug.downstream.detection.network import build_network, first_label
from genaug.downstream.trainer import TrainerConfig
from genaug.downstream.training import build_trainer, fit
from genaug.tracking.record import Record

WEIGHTS = "teacher.pt"


def train_auditor(config: Detector, dataset: Dataset, folder: Path, device: str) -> dict[str, Any]:
    """Train on ``dataset.train`` alone and write the weights into ``folder``; returns facts for the record."""
    fold = dataclasses.replace(dataset, val=(), test=())
    data = TrainingData(dataset=fold, mix=RealOnly(name="real_only"), pool=None, augment=Augment(shift=0.1, zoom=0.2))
    trainer = TrainerConfig(accelerator=device)
    with torch.random.fork_rng(devices=[]), quiet_lightning(), tempfile.TemporaryDirectory() as scratch:
        record = Record(folder)
        images = BoxedImages(config.image_size, fold.train, Store(Path(scratch)))
        model = make_model(config, data, images, trainer)
        fit(build_trainer(trainer, config.num_steps, folder, record, "teacher", []), model, folder, record)
    torch.save(model.scored.state_dict(), folder / WEIGHTS)
    (folder / "checkpoints" / "resume.ckpt").unlink(missing_ok=True)
    return {"teacher": config.architecture, "num_steps": config.num_steps, "images": len(fold.train)}


def trained_eye(
    config: Detector, num_classes: int, folder: Path, device: torch.device | str
) -> Callable[[str, np.ndarray], Detections]:
    """What ``train_auditor`` wrote, as a function from an image's name and uint8 pixels [h, w, 3] to its detections."""
    network = build_network(config, num_classes)
    network.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
    network.to(device).eval()
    images = BoxedImages(config.image_size)

    def look(name: str, pixels: np.ndarray) -> Detections:
        sample = Sample(id=name, digest=name, image=pixels)
        return detect(network, [sample], images, first_label(config), device)[0]

    return look
