"""Counts the floating-point operations that ``genaug plan`` reckons with; prints the constants of src/genaug/core/cost.py.

    python -m benchmarks forward_gflop

One image through the shipped prior, through every network of conf/downstream at its preset's size and through the published
shapes of ``AUTO``, by torch's FlopCounterMode (a multiplication and an addition are 2). Nothing is downloaded.
"""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.core.paths import project_root
from genaug.downstream.detection.config import Detector

AUTO_SIDE = 640
AUTO = {
    "rtdetr_v2_r18vd": {
        "backbone": {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"},
        "encoder_in_channels": [128, 256, 512],
        "hidden_expansion": 0.5,
        "decoder_layers": 3,
    },
    "rtdetr_v2_r50vd": {"backbone": {}},
}
"""Detectors of ``downstream.architecture=auto``, by the last part of their Hub ids, as their config.json has them."""


def auto_gflop(backbone: dict[str, Any], **shape: Any) -> float:
    """One image of ``AUTO_SIDE`` pixels through an RT-DETRv2."""
    from transformers import AutoModelForObjectDetection, RTDetrV2Config
    from transformers.models.rt_detr.configuration_rt_detr_resnet import RTDetrResNetConfig

    config = RTDetrV2Config(backbone_config=RTDetrResNetConfig(out_indices=[2, 3, 4], **backbone), **shape)
    network = AutoModelForObjectDetection.from_config(config).eval()
    return gflop_of(lambda: network(torch.rand(1, 3, AUTO_SIDE, AUTO_SIDE)))


def gflop_of(call: Any) -> float:
    """GFLOP of what ``call`` does."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() / 1e9


def downstream_gflop(config: Any) -> float:
    """One image of the configured size through a classifier's backbone or a detector."""
    from genaug.downstream.classification.backbones import make_backbone
    from genaug.downstream.detection.network import build_network

    side = config.image_size
    if isinstance(config, Detector):
        config.weights = "none"
        network = build_network(config, num_classes=10).eval()
        return gflop_of(lambda: network([torch.rand(3, side, side)]))
    network = make_backbone(config.network, side, False, None).eval()
    return gflop_of(lambda: network(torch.rand(1, 3, side, side)))


def main() -> None:
    prior = compose_typed([]).prior.load("cpu")
    x, t = torch.rand(1, 4, 4, 4), torch.tensor([500])
    prompt = prior.embed([""])
    print(f"TINY_UNET_GFLOP = {gflop_of(lambda: prior.predict_noise(x, t, prompt)):.4g}")
    image = torch.rand(1, 3, 32, 32)
    print(f"TINY_VAE_GFLOP = {gflop_of(lambda: prior.vae(image)):.4g}")
    counted = {name: (AUTO_SIDE, auto_gflop(**shape)) for name, shape in AUTO.items()}
    for path in sorted((project_root() / "conf" / "downstream").glob("*.yaml")):
        for dataset in ("digits", "digit_scenes"):
            try:
                config = compose_typed([f"downstream={path.stem}", f"dataset={dataset}"]).downstream
                config.check("detection" if dataset == "digit_scenes" else "classification")
            except GenaugError:
                continue  # the other task
            if config.network not in counted and config.network not in AUTO:
                counted[config.network] = (config.image_size, downstream_gflop(config))
    for network, (side, gflop) in sorted(counted.items()):
        print(f'    "{network}": ({side}, {gflop:.4g}),')


if __name__ == "__main__":
    main()
