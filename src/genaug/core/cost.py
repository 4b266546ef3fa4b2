"""What the work of a run is counted in: forward passes of single images through networks, and what a GPU does per second.

Every assumption behind the hours of ``genaug plan`` stands here. ``table.gflop`` of an experiment replaces the cost of a
generator's forward pass; ``genaug plan --use --train-use`` the shares of a GPU's rate.
"""

from dataclasses import dataclass

from genaug.core.errors import GenaugError

LEARNING = 3.0
"""What a training step costs per image, in forward passes: the backward pass computes gradients of activations and weights."""
TO_INPUT = 2.08
"""The same where the gradient goes to the input alone (textual inversion; counted on the SD 1.x U-Net)."""

UNET_GFLOP = {256: 180.0, 384: 423.0, 512: 803.0, 768: 2148.0}
"""One forward of the SD 1.x U-Net, by image side in pixels (FlopCounterMode, 1 MAC = 2 FLOP)."""
VAE_GFLOP = 1117.0 + 2515.0
"""Encode and decode of the SD VAE at 512 px."""
TINY_UNET_GFLOP, TINY_VAE_GFLOP = 0.06456, 0.2614
"""The same of the shipped prior at 32 px."""
FORWARD_GFLOP = {
    "deit_base_distilled_patch16_224": (224, 33.87),
    "densenet_bc_190_cifar": (32, 18.6),
    "detector_tiny": (64, 0.159),
    "faster_rcnn": (640, 180.0),
    "faster_rcnn on convnext_tiny": (640, 183.6),
    "faster_rcnn_v2": (640, 450.9),
    "fcos": (640, 160.8),
    "preact_resnet18_cifar": (32, 1.111),
    "resnet101": (224, 15.6),
    "resnet50": (224, 8.174),
    "retinanet": (640, 165.1),
    "retinanet_v2": (640, 165.9),
    "rtdetr_v2_r18vd": (640, 60.7),
    "rtdetr_v2_r50vd": (640, 136.7),
    "test_resnet": (32, 0.008198),
    "vit_base_patch14_reg4_dinov2": (224, 44.57),
    "vit_base_patch16_224": (224, 33.7),
    "vit_base_patch16_dinov3": (256, 44.64),
    "wrn28_10_cifar": (32, 10.49),
}
"""One forward pass of a downstream network: (image side in pixels, GFLOP). Printed by benchmarks/forward_gflop.py."""

GPUS = {"h200": 790.0, "h100": 790.0, "a100": 312.0, "l40s": 362.0, "4090": 165.0, "3090": 71.0, "v100": 125.0}
"""Dense half-precision TFLOP/s: measured on a large product for the H200, from the data sheets for the others."""
USE = 0.4
"""Share of that rate which batched sampling and fitting of the prior reach in half precision (ours)."""
TRAIN_USE = 0.2
"""The same of downstream training: NVIDIA's DeepLearningExamples report 2,470 images/s of ResNet-50 on an A100 in mixed
precision, 0.19 of its rate; their TF32 takes 2.6 times as long."""


@dataclass(kw_only=True, frozen=True, slots=True)
class ForwardPasses:
    """Forward passes of single images through one network: what every component states of its own work."""

    network: str
    """Its name, for people."""
    count: int
    """Images, each as often as it goes through; the backward passes of training are not counted here."""
    gflop: float | None = None
    """One forward pass of one image; None for the U-Net of the prior in use, or where nobody counted it."""
    relative_cost: float = 1.0
    """Cost of one with its gradient, as a multiple of the forward pass: ``LEARNING``, ``TO_INPUT``, or 1 without one."""


def forward_gflop(network: str, image_size: int) -> float | None:
    """One image through a downstream network; it grows with the number of pixels. None for a network that nobody counted."""
    if network not in FORWARD_GFLOP:
        return None
    side, gflop = FORWARD_GFLOP[network]
    return gflop * (image_size / side) ** 2


def unet_gflop(image_size: int, tiny: bool) -> float:
    """One forward of the prior's U-Net; between the counted sizes it follows the number of latent cells."""
    if tiny:
        return TINY_UNET_GFLOP * (image_size / 32) ** 2
    return UNET_GFLOP.get(image_size, UNET_GFLOP[512] * (image_size / 512) ** 2)


def vae_gflop(image_size: int, tiny: bool) -> float:
    """Encode and decode of one image."""
    return TINY_VAE_GFLOP * (image_size / 32) ** 2 if tiny else VAE_GFLOP * (image_size / 512) ** 2


def hours(tflop: float, gpu: str, use: float) -> float:
    """Expected hours on a named GPU.

    Raises:
        GenaugError: for a GPU without a known rate, or a share outside (0, 1].
    """
    if gpu.lower() not in GPUS:
        raise GenaugError(f"gpu={gpu} is not known. Write one of {', '.join(GPUS)}.")
    if not 0 < use <= 1:
        raise GenaugError(f"use={use} is the share of the GPU's rate that is reached: write a number in (0, 1].")
    return tflop / (GPUS[gpu.lower()] * use) / 3600


def duration(hours: float) -> str:
    """``3.2 hours``, or minutes or seconds where those read better."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    if 60 * hours >= 1:
        return f"{60 * hours:.1f} minutes"
    seconds = 3600 * hours
    return f"{seconds:.0f} seconds" if seconds >= 1.5 else "a second" if seconds > 1 else "a second or less"
