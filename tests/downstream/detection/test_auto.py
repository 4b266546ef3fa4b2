"""The detectors of transformers: each family learns, speaks in pixels of its images, and refuses what it cannot load."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor
from transformers.modeling_outputs import ModelOutput

from genaug.core.errors import GenaugError
from genaug.core.identity import canonical, fingerprint
from genaug.data.augmentation import Augment
from genaug.data.mixing import RealOnly
from genaug.data.sample import Sample
from genaug.data.sources.digit_scenes import DigitScenes
from genaug.downstream.base import TrainingData
from genaug.downstream.detection.auto import FAMILIES, AutoModel
from genaug.downstream.detection.batches import BoxedImages
from genaug.downstream.detection.config import Detector
from genaug.downstream.detection.module import LightningDetector, detect, make_model
from genaug.downstream.detection.network import build_network
from genaug.downstream.trainer import TrainerConfig
from genaug.tracking.record import Record
from tests.downstream.detection.tiny_detectors import CONFIGS, SIDE, saved


@pytest.fixture(scope="module")
def scenes():
    return DigitScenes(seed=0, num_train=6, num_val=2, num_test=3).load()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Every family with the heads of five classes."""
    root = tmp_path_factory.mktemp("models")
    return {name: saved(name, root / name, num_classes=5) for name in CONFIGS}


def detector(folder: Path | str, auto: dict[str, Any] | None = None, **changes: Any) -> Detector:
    given: dict[str, Any] = {
        "name": "d",
        "seed": 0,
        "image_size": SIDE,
        "batch_size": 2,
        "warmup_steps": 0,
        "lr": 0.001,
    }
    model = AutoModel(path=str(folder), **(auto or {}))
    return Detector(**{**given, "architecture": "auto", "weights": "coco", "auto": model, **changes})


def train(config: Detector, dataset: Any, folder: Path, **trainer: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    data = TrainingData(dataset=dataset, mix=RealOnly(), pool=None, augment=Augment())
    return config.train(data, TrainerConfig(accelerator="cpu", **trainer), folder, Record(folder))


def picture(seed: int, height: int, width: int) -> torch.Tensor:
    """uint8 values as floats in [0, 1]: what a stored picture gives."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width))).float() / 255


BOXES = torch.tensor([[8.0, 4, 40, 24], [20.0, 10, 60, 30]])
MOST_STEPS = 300
LABELS = torch.tensor([2, 0])


def test_every_family_is_tested():
    assert set(CONFIGS) == set(FAMILIES)


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_are_those_of_transformers_own_processor_and_model(name, folders):
    network = build_network(detector(folders[name]), 5)
    image = picture(1, SIDE, SIDE)
    annotations = {
        "image_id": 0,
        "annotations": [
            {"category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            for (x1, y1, x2, y2), label in zip(BOXES.tolist(), LABELS, strict=True)
        ],
    }
    processor = AutoImageProcessor.from_pretrained(folders[name])
    inputs = processor(images=(image * 255).round().to(torch.uint8), annotations=annotations, return_tensors="pt")
    labels = [{key: entry[key] for key in ("class_labels", "boxes")} for entry in inputs["labels"]]
    torch.manual_seed(3)
    theirs = network.model(pixel_values=inputs["pixel_values"], labels=labels)
    torch.manual_seed(3)
    ours = network([image], [{"boxes": BOXES, "labels": LABELS}])
    assert ours["loss"].item() == pytest.approx(theirs.loss.item(), rel=1e-4)
    assert ours["loss"].item() > 0


@pytest.mark.parametrize("name", CONFIGS)
def test_detections_are_those_of_transformers_own_processor_in_pixels_of_the_image(name, folders):
    network = build_network(detector(folders[name], min_score=0.001, max_detections=20), 5).eval()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 20, 5, generator=generator)
    boxes = torch.rand(1, 20, 4, generator=generator) * 0.2 + 0.4  # all of each box is inside
    (found,) = network.detections(logits, boxes, [(30, 100)])
    processor = AutoImageProcessor.from_pretrained(folders[name])
    output = ModelOutput(logits=logits, pred_boxes=boxes)
    (theirs,) = processor.post_process_object_detection(output, threshold=0.001, target_sizes=[(30, 100)])
    for key in ("scores", "labels", "boxes"):
        assert torch.allclose(found[key], theirs[key][:20].to(found[key].dtype), atol=1e-5)
    assert len(found["scores"]) == 20 and float(found["boxes"][:, 2].max()) > 30  # wider than the image is high


def test_boxes_of_a_wide_image_are_shares_of_its_own_sides(folders):
    network = build_network(detector(folders["rt_detr"]), 5)
    seen = []
    network.model.register_forward_pre_hook(lambda _, args, given: seen.extend(given["labels"]), with_kwargs=True)
    network([picture(1, 32, 64)], [{"boxes": BOXES[:1], "labels": LABELS[:1]}])
    assert seen[0]["boxes"].tolist() == [[24 / 64, 14 / 32, 32 / 64, 20 / 32]]
    assert seen[0]["class_labels"].tolist() == [2]


def test_boxes_end_at_the_edge_of_the_image_and_low_scores_are_left_out(folders):
    network = build_network(detector(folders["rt_detr"], min_score=0.5), 5).eval()
    logits = torch.full((1, 20, 5), -9.0)
    logits[0, 3, 4], logits[0, 7, 1] = 2.0, 1.0
    boxes = torch.full((1, 20, 4), 0.5)
    boxes[0, 3] = torch.tensor([0.9, 0.5, 0.4, 0.5])
    (found,) = network.detections(logits, boxes, [(40, 80)])
    assert found["labels"].tolist() == [4, 1]
    assert found["boxes"][0].tolist() == pytest.approx([56, 10, 80, 30])
    assert found["boxes"][1].tolist() == pytest.approx([20, 10, 60, 30])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_batch_of_different_shapes_gives_what_single_images_give(name, folders):
    network = build_network(detector(folders[name]), 5)
    sizes = [(SIDE, SIDE), (40, SIDE), (SIDE, 30)]
    samples = [
        Sample(id=str(i), digest=str(i), image=(picture(i, *size) * 255).byte().permute(1, 2, 0).numpy())
        for i, size in enumerate(sizes)
    ]
    images = BoxedImages(SIDE)
    together = detect(network, samples, images, 0, "cpu")
    for sample, found in zip(samples, together, strict=True):
        (alone,) = detect(network, [sample], images, 0, "cpu")
        assert len(found.scores) == len(alone.scores) > 0
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)
        np.testing.assert_allclose(found.xyxy, alone.xyxy, atol=1e-3)
        np.testing.assert_array_equal(found.labels, alone.labels)


@pytest.mark.parametrize("name", CONFIGS)
def test_each_family_learns_a_scene_by_heart_from_random_weights(name, folders):
    """One wide image, one box: after training the best detection lies on it, in its own pixels."""
    torch.manual_seed(0)
    config = detector(folders[name], weights="none")
    network = build_network(config, 3)
    image, box = torch.zeros(3, 32, SIDE), torch.tensor([[36.0, 6, 60, 22]])
    image[:, 6:22, 36:60] = 1.0
    targets = [{"boxes": box, "labels": torch.tensor([1])}]
    lr = 0.012 if name == "lw_detr" else 0.006
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, fused=True)
    assert not knows(network, image)
    for step in range(1, MOST_STEPS + 1):
        loss = network([image], targets)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0 and knows(network, image):
            return
    raise AssertionError(f"not learned in {MOST_STEPS} steps")


def knows(network, image) -> bool:
    """Whether the best detection has the box's label and most of its place."""
    network.eval()
    with torch.no_grad():
        (found,) = network([image])
    network.train()
    x1, y1, x2, y2 = found["boxes"][0].tolist()
    shared = max(0.0, min(x2, 60) - max(x1, 36)) * max(0.0, min(y2, 22) - max(y1, 6))
    return int(found["labels"][0]) == 1 and shared / ((x2 - x1) * (y2 - y1) + 24 * 16 - shared) > 0.7


@pytest.mark.parametrize("name", CONFIGS)
def test_a_resumed_training_ends_as_one_that_was_never_interrupted(name, folders, scenes, tmp_path):
    config = detector(folders[name], num_steps=4, ema_decay=0.5 if name == "d_fine" else 0.0)
    whole = train(config, scenes, tmp_path / "whole", checkpoint_every=2)

    class Stop(RuntimeError):
        pass

    step, seen = LightningDetector.training_step, []

    def stop(self, batch, batch_idx):
        if len(seen) == 3:
            raise Stop
        seen.append(batch_idx)
        return step(self, batch, batch_idx)

    LightningDetector.training_step = stop  # type: ignore[method-assign]
    try:
        with pytest.raises(Stop):
            train(config, scenes, tmp_path / "cut", checkpoint_every=2)
    finally:
        LightningDetector.training_step = step  # type: ignore[method-assign]
    assert (tmp_path / "cut" / "checkpoints" / "resume.ckpt").is_file()
    resumed = train(config, scenes, tmp_path / "cut", checkpoint_every=2)
    assert resumed["metrics"] == whole["metrics"] and resumed["predictions"] == whole["predictions"]
    assert any(row["boxes"] for row in whole["predictions"])
    said = (tmp_path / "whole" / "log.txt").read_text()
    assert "weights of other classes were dropped" in said and "class_embed" in said


@pytest.mark.parametrize("name", CONFIGS)
def test_all_weights_but_those_of_the_classes_are_loaded(name, folders):
    same = build_network(detector(folders[name]), 5)
    state = same.model.state_dict()
    other = build_network(detector(folders[name]), 3)
    found = other.model.state_dict()
    assert same.dropped == [] and other.dropped
    kept = {key for key, value in found.items() if key not in other.dropped and value.numel() > 1}
    tied = {key for key in kept if state[key].shape != found[key].shape}  # the same layer by another name
    assert all("class_embed" in key for key in tied)
    assert all(torch.equal(found[key], state[key]) for key in kept - tied)
    random = build_network(detector(folders[name], weights="none"), 5).model.state_dict()
    assert not all(torch.equal(random[key], state[key]) for key in state)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_frozen_backbone_stays_and_the_rest_learns(name, folders, scenes, tmp_path):
    config = detector(folders[name], {"freeze_backbone": True}, num_steps=1)
    data = TrainingData(dataset=scenes, mix=RealOnly(), pool=None, augment=Augment())
    model = make_model(config, data, BoxedImages(SIDE), TrainerConfig(accelerator="cpu"))
    network = model.network
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images, targets = [picture(2, SIDE, SIDE)], [{"boxes": BOXES, "labels": LABELS}]
    network(images, targets)["loss"].backward()
    torch.optim.SGD([w for w in network.parameters() if w.requires_grad], lr=0.1).step()
    inside = {f"model.{key}" for part, key in _names(network)}
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert inside and not changed & inside and changed


def _names(network: Any) -> list[tuple[str, str]]:
    prefix = next(name for name, part in network.model.named_modules() if part is network.backbone)
    return [(prefix, key) for key in network.model.state_dict() if key.startswith(f"{prefix}.")]


def test_the_backbone_learns_at_its_share_of_the_rate(folders, scenes):
    config = detector(folders["rt_detr"], {"backbone_lr_scale": 0.1}, lr=0.01, num_steps=3)
    data = TrainingData(dataset=scenes, mix=RealOnly(), pool=None, augment=Augment())
    model = make_model(config, data, BoxedImages(SIDE), TrainerConfig(accelerator="cpu"))
    rest, backbone = model.configure_optimizers()["optimizer"].param_groups
    assert rest["initial_lr"] == 0.01 and backbone["initial_lr"] == pytest.approx(0.001)
    assert {id(w) for w in backbone["params"]} == {id(w) for w in model.network.backbone.parameters()}
    assert len(rest["params"]) + len(backbone["params"]) == len(list(model.network.parameters()))


def test_the_processor_says_size_and_statistics_unless_the_user_does(folders, tmp_path):
    network = build_network(detector(folders["rf_detr"]), 5)
    assert network.side == SIDE and network.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert build_network(detector(folders["rt_detr"]), 5).std.flatten().tolist() == [1, 1, 1]  # it does not normalise
    larger = build_network(detector(folders["rt_detr"], {"input_size": 96}), 5)
    seen = []
    larger.model.register_forward_pre_hook(
        lambda _, args, given: seen.append(given["pixel_values"].shape), with_kwargs=True
    )
    larger.eval()([torch.zeros(3, 32, 64)])
    assert seen == [(1, 3, 96, 96)]
    with pytest.raises(GenaugError, match=r"input_size=50 does not suit .* multiple of 32"):
        build_network(detector(folders["rt_detr"], {"input_size": 50}), 5)
    folder = saved("lw_detr", tmp_path / "edges", 5)
    described = json.loads((folder / "preprocessor_config.json").read_text())
    described["size"] = {"shortest_edge": 800, "longest_edge": 1333}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    with pytest.raises(GenaugError, match=r"no squares.*downstream\.auto\.input_size=640"):
        build_network(detector(folder), 5)
    assert build_network(detector(folder, {"input_size": 64}), 5).side == 64


def refused(config: Detector, scenes: Any) -> str:
    """What a run says before anything is generated."""
    with pytest.raises(GenaugError) as error:
        config.check("detection")
        config.check_dataset(scenes)
    return str(error.value)


def test_what_cannot_be_loaded_is_refused_before_anything_is_generated(folders, scenes, tmp_path):
    assert "there is no such file or folder" in refused(detector(tmp_path / "nowhere"), scenes)
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(detector(tmp_path / "file"), scenes)
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused(detector(tmp_path / "empty"), scenes)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (bare / name).write_text((folders["rt_detr"] / name).read_text())
    assert "has no weights" in refused(detector(bare), scenes)
    torch.save({}, bare / "pytorch_model.bin")  # a pickle is never read
    assert "has no weights" in refused(detector(bare), scenes)
    detector(bare, weights="none").check_dataset(scenes)
    (bare / "model.safetensors").write_bytes(b"no weights")
    assert "the weights cannot be loaded" in refused(detector(bare), scenes)
    (bare / "preprocessor_config.json").unlink()
    assert "cannot be read" in refused(detector(bare), scenes)


def test_checkpoints_of_other_kinds_are_refused_with_what_they_are(folders, scenes, tmp_path):
    import transformers

    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, layer_type="basic")
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "classifier")
    said = refused(detector(tmp_path / "classifier"), scenes)
    assert "ResNetForImageClassification, model_type resnet" in said
    assert all(f"{name} (transformers {version})" in said for name, version in FAMILIES.items())
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for file in folders["rt_detr"].iterdir():
        (foreign / file.name).write_bytes(file.read_bytes())
    (foreign / "model.safetensors").write_bytes((tmp_path / "classifier" / "model.safetensors").read_bytes())
    assert "of another network" in refused(detector(foreign), scenes)


def test_a_hub_name_without_a_network_says_what_to_download(scenes, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = refused(detector("nobody/no_such_detector@main"), scenes)
    assert "downstream.auto.path=nobody/no_such_detector@main" in said
    assert "hf download nobody/no_such_detector --revision main" in said and "downstream=faster_rcnn" in said


def test_a_family_that_the_installed_transformers_lacks_is_named_with_its_version(folders, monkeypatch):
    monkeypatch.setattr("genaug.downstream.detection.auto_network.CONFIG_MAPPING", {})
    with pytest.raises(GenaugError, match=r"d_fine, which came with transformers 4\.52; here is"):
        build_network(detector(folders["d_fine"]), 5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"auto": None}, "downstream=detector_auto"),
        ({"architecture": "tiny", "weights": "none"}, "belongs to architecture=auto"),
        ({"weights": "backbone"}, "weights=coco for all"),
        ({"weights_path": "x.pth"}, "weights_path=null"),
        ({"trainable_layers": 3}, "freeze_backbone"),
    ],
)
def test_options_of_other_detectors_are_refused(changes, said):
    given = {
        "name": "d",
        "seed": 0,
        "image_size": SIDE,
        "architecture": "auto",
        "weights": "coco",
        "auto": AutoModel(path="a/b"),
    }
    with pytest.raises(GenaugError, match=said):
        Detector(**{**given, **changes})


def test_several_devices_are_refused_before_anything_is_generated():
    with pytest.raises(GenaugError, match=r"trains on one device.*trainer\.devices=1"):
        trainer = TrainerConfig(accelerator="cpu", devices=2)
        detector("a/b").check_training(RealOnly(), Augment(), trainer, online=False)
    detector("a/b").check_training(RealOnly(), Augment(), TrainerConfig(accelerator="cpu"), online=False)


def test_a_frozen_backbone_has_no_learning_rate():
    with pytest.raises(GenaugError, match="frozen backbone"):
        AutoModel(path="a/b", freeze_backbone=True, backbone_lr_scale=0.1)


def test_the_identity_is_the_folders_content_and_not_its_place(folders, tmp_path):
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for file in folders["rt_detr"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "README.md").write_text("no part of the model")
    one, two = detector(folders["rt_detr"]), detector(copy)
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(one) != fingerprint(detector(folders["rt_detr_v2"]))
    assert "auto" not in canonical(Detector(name="d", seed=0, image_size=64))
    assert one.auto is not None and dataclasses.replace(one.auto, path="o/m@v1").name == "m"
