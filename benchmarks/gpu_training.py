"""Training by genaug against the loops that one would write: timm's for a classifier, torchvision's for a detector.

python -m benchmarks gpu_training           # toy size on the CPU
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Different, Row, Side, compare, say
from benchmarks.training import Silent
from genaug.composition import compose_typed
from genaug.core.identity import digest_bytes
from genaug.core.seeding import derive
from genaug.data.augmentation import NORMALIZATIONS
from genaug.data.sample import Boxes, Dataset, Sample
from genaug.downstream.base import TrainingData
from genaug.downstream.classification.module import Network
from genaug.downstream.detection.network import build_network, first_label

NUM_IMAGES, NUM_CLASSES = 256, 10


def noise(size: int, boxes: bool, count: int = NUM_IMAGES) -> Dataset:
    """Images of noise in memory; one is the test split, so that scoring takes no time."""
    random = np.random.default_rng(0)
    samples = []
    for i in range(count + 1):
        pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
        fields: dict[str, Any] = {"id": str(i), "digest": digest_bytes(pixels.tobytes()), "image": pixels}
        if boxes:
            corners = random.uniform(0, size / 2, (4, 2))
            xyxy = np.concatenate([corners, corners + random.uniform(8, size / 2, (4, 2))], axis=1).astype(np.float32)
            labels = random.integers(0, NUM_CLASSES, 4)
            fields["boxes"] = Boxes(xyxy=xyxy, labels=labels, crowd=np.zeros(4, dtype=bool))
        else:
            fields["label"] = {i % NUM_CLASSES: 1.0}
        samples.append(Sample(**fields))
    task = "detection" if boxes else "classification"
    names = tuple(f"class {c}" for c in range(NUM_CLASSES))
    return Dataset(name="noise", task=task, class_names=names, train=tuple(samples[1:]), val=(), test=(samples[0],))


def configured(task: str, device: str, *words: str) -> Any:
    """A run on the real images alone, in bf16 on a GPU."""
    gpu = device.startswith("cuda")
    chosen = ["generator=none", "mix=real_only", f"trainer.accelerator={'cuda' if gpu else 'cpu'}"]
    chosen += ["trainer.precision=bf16-mixed"] if gpu else []
    chosen += ["dataset=digit_scenes"] if task == "detection" else []
    return compose_typed([*chosen, *words, "downstream.eval_every=null", "downstream.warmup_steps=0"])


def trained(cfg: Any, dataset: Dataset) -> Callable[[], int]:
    """A whole training by genaug; gives the number of steps."""

    def run() -> int:
        data = TrainingData(dataset=dataset, mix=cfg.mix, pool=None, augment=cfg.augment)
        with tempfile.TemporaryDirectory() as folder:
            result = cfg.downstream.train(data, cfg.trainer, Path(folder), Silent())
        return int(result["protocol"]["num_steps"])

    return run


def same_steps(ours: int, theirs: int) -> str:
    """Both have gone equally far."""
    if ours != theirs:
        raise Different(f"{ours} steps are not {theirs}")
    return f"{ours} steps of the same network, optimiser, batch and number format; each draws its own crops"


def classifier_row(backbone: str, size: int, batch: int, steps: int, device: str, **options: Any) -> Row:
    """Images of a training; timm's side is its loader (workers, pinned, prefetched to the device), channels last, bf16."""
    from timm.data import create_loader

    words = [f"downstream.backbone={backbone}", "downstream.mode=scratch", "downstream.weights_path=null"]
    words += [f"downstream.{key}={value}" for key, value in {"batch_size": batch, "num_steps": steps}.items()]
    cfg = configured(
        "classification", device, "downstream=resnet50", "augment=flip_crop", *words, f"dataset.image_size={size}"
    )
    cfg.downstream.image_size = size
    dataset, gpu = noise(size, boxes=False), device.startswith("cuda")

    class Pictures(torch.utils.data.Dataset):
        """The images, again and again, as timm's loader takes them."""

        transform: Any = None

        def __len__(self) -> int:
            return steps * batch

        def __getitem__(self, i: int) -> tuple[Any, int]:
            sample = dataset.train[i % NUM_IMAGES]
            return self.transform(sample.open()), sample.class_index

    def theirs() -> int:
        torch.manual_seed(derive(cfg.downstream.seed, "init"))
        network = Network(cfg.downstream, NUM_CLASSES).to(device)
        if gpu:
            network = network.to(memory_format=torch.channels_last)
        mean, std = NORMALIZATIONS[cfg.downstream.normalize]
        loader = create_loader(
            Pictures(),
            (3, size, size),
            batch,
            is_training=True,
            use_prefetcher=gpu,
            no_aug=False,
            scale=(cfg.augment.crop_min_area, 1.0),
            color_jitter=None,
            mean=mean,
            std=std,
            num_workers=cfg.trainer.workers(),
            persistent_workers=cfg.trainer.workers() > 0,
            pin_memory=gpu,
            device=torch.device(device),
        )
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
        done = 0
        for images, targets in loader:
            images, targets = images.to(device), targets.to(device)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=gpu):
                logits = network.head(network.backbone(images))
                loss = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
        return done

    trained(shortened(cfg, 1), dataset)()  # warm up
    return compare(
        f"training {backbone} at {size} px, {steps} steps of {batch} images",
        Side("genaug, from the start to the scored result", trained(cfg, dataset), steps * batch),
        Side("timm's loader and a plain loop", theirs, steps * batch),
        same_steps,
        target=1.0,
        device=device,
        **options,
    )


def detector_row(architecture: str, size: int, batch: int, steps: int, device: str, **options: Any) -> Row:
    """Steps of a training; the plain side has its batches in memory, without augmentation."""
    words = [f"downstream.architecture={architecture}", "downstream.weights=none"]
    words += [f"downstream.{key}={value}" for key, value in {"batch_size": batch, "num_steps": steps}.items()]
    cfg = configured("detection", device, "downstream=faster_rcnn", "augment=none", *words)
    cfg.downstream.image_size = size
    dataset, gpu = noise(size, boxes=True, count=max(batch, 16)), device.startswith("cuda")

    def theirs() -> int:
        torch.manual_seed(0)
        network = build_network(cfg.downstream, NUM_CLASSES).to(device).train()
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        optimizer = torch.optim.SGD(weights, lr=1e-4, momentum=0.9, weight_decay=1e-4)
        for step in range(steps):
            batch_of = [dataset.train[(step * batch + i) % len(dataset.train)] for i in range(batch)]
            images = [torch.from_numpy(np.asarray(s.open()).copy()).permute(2, 0, 1).to(device) / 255 for s in batch_of]
            targets = []
            for sample in batch_of:
                assert sample.boxes is not None
                boxes, labels = torch.from_numpy(sample.boxes.xyxy), torch.from_numpy(sample.boxes.labels)
                targets.append({"boxes": boxes.to(device), "labels": labels.to(device) + first_label(cfg.downstream)})
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=gpu):
                loss = torch.stack(list(network(images, targets).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return steps

    cfg.downstream.lr = 1e-4  # noise teaches nothing, and must not make the loss infinite
    trained(shortened(cfg, 1), dataset)()  # warm up
    return compare(
        f"training the detector {architecture} at {size} px, {steps} steps of {batch} images",
        Side("genaug, from the start to the scored result", trained(cfg, dataset), steps * batch),
        Side("a plain loop with images in memory", theirs, steps * batch),
        same_steps,
        target=0.9,
        device=device,
        **options,
    )


def shortened(cfg: Any, steps: int) -> Any:
    """The same run of fewer steps."""
    other = copy.deepcopy(cfg)
    other.downstream.num_steps = steps
    return other


def main() -> None:
    for row in (classifier_row("test_resnet", 32, 4, 4, "cpu"), detector_row("tiny", 64, 2, 4, "cpu")):
        print(say(row))


if __name__ == "__main__":
    main()
