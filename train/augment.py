"""Training augmentation: random crop, mirror and colour noise, as a pure function.

What happens to an image follows from (seed, epoch, sample index) alone, so it does not depend on
threads, batches, the number of GPUs or restarts (invariant 7 of the design). Takes uint8 RGB
images [S,S,3] as FFCV decodes them, gives float32 [crop,crop,3] in grey levels: the pixel less the
training set's mean, plus the image's colour noise, over the noise's divisor. This is the CPU's
way, a numba kernel that train/reading.py calls for each sample; train/augment_device.py has the
same as tensor operations, and train/augmentation.py says what there is to choose.

Sources: paper sections 2 (mean activity) and 4.1 (crops, reflections, colour noise), and where
they differ the authors' code of 2012, convdata.py, class CroppedImageNetDP.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from prep.handover import Statistics
from prep.program import UserError
from train import colour, philox
from train.augmentation import Augmentation, mean_picture
from train.colour import image_axes, noise_axes
from train.kept import made_of
from train.philox import COLOUR_NOISE, CROP_AND_MIRROR, TWO_TO_32, WORD, key_words, philox4x32


class Tables(NamedTuple):
    """What the kernel takes of an augmentation and the statistics."""

    means: npt.NDArray[np.float32]  # [2,S,S*3], the mean image; mirrored
    axes: npt.NDArray[np.float32]  # [3,3], see noise_axes
    centre: bool  # subtract the mean's centre from every crop
    mirror: bool
    per_image: bool  # the axes are each image's own, and the noisy pixels are clipped
    sigma: float
    scale: np.float32  # of what has no noise, 1 / pixel_divisor
    noisy_scale: np.float32  # that over noise_divisor
    noise_until: int
    share: int
    seed: int


def tables(augmentation: Augmentation, statistics: Statistics) -> Tables:
    """Raises UserError when the crop does not fit the statistics' mean image."""
    mean_SSC = mean_picture(augmentation.mean, statistics.mean_image)
    side = statistics.side
    if augmentation.crop > side:
        raise UserError(
            f"a crop of {augmentation.crop} does not fit images of {side}x{side} pixels"
        )
    axes = np.zeros((3, 3), np.float32)
    if augmentation.noise in ("standard-deviations", "eigenvalues"):
        axes = noise_axes(statistics, augmentation.noise)
    return Tables(
        means=np.stack([mean_SSC, mean_SSC[:, ::-1]]).reshape(2, side, side * 3),
        axes=axes,
        centre=augmentation.mean == "centre",
        mirror=augmentation.mirror,
        per_image=augmentation.noise == "per-image",
        sigma=augmentation.sigma,
        scale=np.float32(1 / augmentation.pixel_divisor),
        noisy_scale=np.float32(1 / augmentation.pixel_divisor / augmentation.noise_divisor),
        noise_until=augmentation.noise_until,
        share=augmentation.share,
        seed=augmentation.seed,
    )


@njit(nogil=True, cache=True)
@made_of(philox)
def draw(
    seed: int, epoch: int, index: int, positions: int, sigma: float, share: int = 1
) -> tuple[int, int, bool, tuple[float, float, float]]:
    """What is drawn for one sample in one epoch: top, left, mirror, alphas.

    top and left are uniform on 0..positions-1, mirror is true half the time, and the three alphas
    are normal with mean 0 and standard deviation `sigma`. `share` consecutive samples have one
    place and mirror: the authors' code does so to 32 images of a batch, and its batches are
    consecutive images of a shuffled set.
    """
    k0, k1 = key_words(seed)
    place = philox4x32(0, (index // share) & WORD, epoch, CROP_AND_MIRROR, k0, k1)
    top = (place[0] * positions) >> 32
    left = (place[1] * positions) >> 32
    mirror = (place[2] >> 31) == 1

    # Box-Muller: two uniform numbers, the first never 0, give two normal ones.
    words = philox4x32(0, index & WORD, epoch, COLOUR_NOISE, k0, k1)
    radius0 = sigma * math.sqrt(-2.0 * math.log((words[0] + 1) / TWO_TO_32))
    radius1 = sigma * math.sqrt(-2.0 * math.log((words[2] + 1) / TWO_TO_32))
    angle0 = 2.0 * math.pi * (words[1] / TWO_TO_32)
    angle1 = 2.0 * math.pi * (words[3] / TWO_TO_32)
    alphas = (radius0 * math.cos(angle0), radius0 * math.sin(angle0), radius1 * math.cos(angle1))
    return top, left, mirror, alphas


@njit(nogil=True, cache=True)
def mirror_row(pixels: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]) -> None:
    """A row of pixels R G B R G B ..., uint8 [3 n], the last pixel first."""
    last = np.uintp(len(out) - 3)
    for x in range(np.uintp(0), np.uintp(len(out)), np.uintp(3)):
        for c in range(np.uintp(3)):
            out[x + c] = pixels[last - x + c]


@njit(nogil=True, cache=True)
@made_of(colour, philox)
def augment_image(
    image_SSC: npt.NDArray[np.uint8],
    out_HWC: npt.NDArray[np.float32],
    index: int,
    epoch: int,
    run: Tables,
) -> None:
    """Fill `out_HWC` with the augmented crop of one image, sample `index` of the data set.

    Its H = W is the crop. Both are C-contiguous.
    """
    side, crop = image_SSC.shape[0], out_HWC.shape[0]
    top, left, drawn, alphas = draw(run.seed, epoch, index, side - crop + 1, run.sigma, run.share)
    turned = drawn and run.mirror
    noisy = run.sigma > 0 and (run.noise_until == 0 or epoch < run.noise_until)
    clipped = noisy and run.per_image
    scale = run.noisy_scale if noisy else run.scale
    noise = np.zeros(crop * 3, np.float32)  # one row, the same three numbers in every pixel
    if noisy:
        axes = image_axes(image_SSC) if run.per_image else run.axes.astype(np.float64)
        for c in range(3):
            noise[c::3] = axes[c, 0] * alphas[0] + axes[c, 1] * alphas[1] + axes[c, 2] * alphas[2]

    # Where the mean lies: the authors' centre crop is taken off after mirroring, and the paper's,
    # at the crop's own place, is mirrored with it.
    if run.centre:
        mean_top = mean_left = (side - crop) // 2
    else:
        mean_top, mean_left = top, side - crop - left if turned else left
    # Rows are one dimension, R G B R G B ..., so that the inner loops run over contiguous numbers.
    image, out = image_SSC.reshape(side, side * 3), out_HWC.reshape(crop, crop * 3)
    mean = run.means[0 if run.centre or not turned else 1]
    mirrored = np.empty(crop * 3, np.uint8)
    for y in range(crop):
        pixels = image[top + y, left * 3 : (left + crop) * 3]
        means = mean[mean_top + y, mean_left * 3 : (mean_left + crop) * 3]
        if turned:
            mirror_row(pixels, mirrored)
            pixels = mirrored
        row = out[y]
        if clipped:
            for i in range(crop * 3):
                bright = np.float32(pixels[i]) + noise[i]
                bright = min(max(bright, np.float32(0)), np.float32(255))
                row[i] = (bright - means[i]) * scale
        else:
            for i in range(crop * 3):
                row[i] = (np.float32(pixels[i]) - means[i] + noise[i]) * scale


class Augment:
    """What the loader's threads augment with. Set `epoch` before each pass over the loader."""

    def __init__(self, augmentation: Augmentation, statistics: Statistics) -> None:
        """Raises UserError as `tables` does."""
        self.crop, self.side = augmentation.crop, statistics.side
        self.tables = tables(augmentation, statistics)
        self.epoch = 0
