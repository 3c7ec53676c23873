"""What training images go through: the choices, each with its source.

train/augment.py does it with the loader's threads, train/augment_device.py on a device.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from prep.program import UserError
from train.recipe import Mean, Noise, Recipe


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What the training images go through; the defaults are the paper's. Evaluation has none.

    Raises UserError naming a value out of its range. "Authors" is convdata.py of their 2012 code,
    where only training images are divided, and "log" the one at the foot of layer-params-145.cfg.
    """

    crop: int  # pixels: paper and authors 224; replicas without conv1's padding 227
    mirror: bool  # mirror every second image, on average (paper)
    colour_noise: float  # standard deviation of the alphas, 0.1 in the paper; 0 for no noise
    seed: int  # 0 <= seed < 2^63
    mean: Mean = "matched"  # at the crop's own place (paper); "centre": data_mean_crop (authors)
    noise: Noise = "standard-deviations"  # authors; see train/colour.py
    noise_divisor: float = 1.0  # of everything while there is noise; authors: 1 + colour_noise
    noise_until: int = 0  # the first epoch without, counted from 0; log: 67; 0: noise to the end
    share: int = 1  # so many consecutive samples have one crop and mirror; authors: crop_chunk, 32
    image_side: int = 256  # pixels, paper section 2: images are brought to it before the crop
    pixel_divisor: float = 1.0  # of everything, always; paper and authors 1

    def __post_init__(self) -> None:
        limits = {
            "crop must be at least 1": self.crop >= 1,
            "colour_noise must be at least 0": 0 <= self.colour_noise < math.inf,
            "seed must be at least 0 and below 2^63": 0 <= self.seed < 2**63,
            "noise_divisor must be above 0": 0 < self.noise_divisor < math.inf,
            "noise_until must be at least 0": self.noise_until >= 0,
            "share must be at least 1": self.share >= 1,
            "pixel_divisor must be above 0": 0 < self.pixel_divisor < math.inf,
        }
        for rule, holds in limits.items():
            if not holds:
                key = rule.split(" ", 1)[0]
                raise UserError(f"augmentation: {rule}, it is {getattr(self, key)}")

    @property
    def sigma(self) -> float:
        """Standard deviation of the alphas while there is noise."""
        return 0.0 if self.noise == "none" else self.colour_noise


def of_recipe(recipe: Recipe) -> Augmentation:
    """A recipe's augmentation. Raises UserError as Augmentation does."""
    return Augmentation(
        crop=recipe.crop,
        mirror=recipe.mirror,
        colour_noise=recipe.colour_noise,
        seed=recipe.seed,
        mean=recipe.mean,
        noise=recipe.noise,
        noise_divisor=recipe.noise_divisor,
        noise_until=recipe.noise_until,
        share=recipe.share,
        image_side=recipe.image_side,
        pixel_divisor=recipe.pixel_divisor,
    )


def mean_picture(mean: Mean, mean_image_SSC: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What is taken off the images, float32 [S,S,3]: the mean image, or a number a channel."""
    if mean == "channels":
        return np.full_like(mean_image_SSC, mean_image_SSC.mean((0, 1), np.float64))
    if mean == "half":
        return np.full_like(mean_image_SSC, 127.5)  # the middle of 0..255
    return np.ascontiguousarray(mean_image_SSC, np.float32)
