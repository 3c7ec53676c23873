"""torchvision's AlexNet weights, as a checkpoint has ours: the same logits from grey levels.

They were learned from x = (p / 255 - m) / d, p being the pixels, m and d a mean and a deviation of
each colour. Ours take p less a mean image: with one of 255 m everywhere, and the weights of conv1
over 255 d, conv1 gives the same. So do its borders, zeros being the mean in both.

Source: torchvision.models.alexnet and its AlexNet_Weights.IMAGENET1K_V1, whose transforms are
torchvision.transforms._presets.ImageClassification with crop_size=224. Their classes are those of
ImageNet-1k, in the order of their wnids.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

import torch

from train.networks.torchvision import renamed
from train.recipe import Recipe, load_recipe

MEAN = (0.485, 0.456, 0.406)  # of each colour, as a share of 255; ImageClassification's default
DEVIATION = (0.229, 0.224, 0.225)  # the same
SIDE = 256  # pixels, ImageClassification's resize_size
BACKEND = "pillow"  # of prep: the pixels of torchvision's Resize and CenterCrop


def are_torchvisions(values: Any) -> bool:
    """Whether what a file holds is a state dict with torchvision's names."""
    return isinstance(values, dict) and "features.0.weight" in values


def ours(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under our names, for grey levels less mean_image().

    Raises KeyError for a name that torchvision's AlexNet does not have.
    """
    changed = {name: values.float() for name, values in renamed(weights).items()}
    levels = torch.tensor(DEVIATION, dtype=torch.float64) * 255
    conv1 = changed["conv1.weight"]
    changed["conv1.weight"] = (conv1.double() / levels[:, None, None]).float()  # [64,3,11,11]
    return changed


def mean_image() -> torch.Tensor:
    """float32 [S,S,3], grey levels."""
    levels = torch.tensor(MEAN, dtype=torch.float64) * 255
    return levels.float().expand(SIDE, SIDE, 3).contiguous()


def recipe() -> Recipe:
    """What evaluation needs of one: the network, one centre crop of 224, the mean at its place."""
    about = 'about="torchvision.models.alexnet with its own weights"'
    network = ("network=torchvision", "dropout_on=inputs")
    return load_recipe("paper", ["name=torchvision", about, *network])


def imagenet_classes() -> tuple[list[str], list[str]]:
    """Wnids and names of ImageNet-1k in label order, which is the order of its manifest."""
    manifest = (resources.files("data_manifests") / "imagenet-1k.toml").read_text("utf-8")
    classes = tomllib.loads(manifest)["classes"]
    return list(classes), [known["name"] for known in classes.values()]
