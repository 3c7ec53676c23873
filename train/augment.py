"""Training augmentation: random crop, mirror and colour noise, as a pure function.

What happens to an image follows from (seed, epoch, sample index) alone, so it does not depend on
threads, batches, the number of GPUs or restarts (invariant 7 of the design). Takes uint8 RGB
batches [B,S,S,3] as FFCV decodes them, gives float32 [B,crop,crop,3] in grey levels: the pixel
less the training set's mean at that place, plus the image's colour noise. Nothing is scaled or
clipped.

Source: paper sections 2 (mean activity) and 4.1 (crops, reflections, colour noise). The mean is
subtracted before mirroring, and the noise uses standard deviations, as in the authors' code.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.state import State
from numba import njit, prange

from prep.handover import Statistics
from prep.program import UserError
from train.philox import COLOUR_NOISE, CROP_AND_MIRROR, TWO_TO_32, WORD, key_words, philox4x32


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What the training images go through."""

    crop: int  # pixels, 224 in the paper
    mirror: bool  # mirror every second image, on average
    colour_noise: float  # standard deviation of the alphas, 0.1 in the paper; 0 for no noise
    seed: int  # 0 <= seed < 2^63


def noise_axes(
    statistics: Statistics, kind: Literal["standard_deviations", "eigenvalues"]
) -> npt.NDArray[np.float32]:
    """[3,3], column i is principal axis i times its scale, in grey levels for an alpha of 1.

    The paper prints eigenvalues; the authors' code uses their square roots, the deviations.
    """
    scales = {
        "standard_deviations": statistics.standard_deviations,
        "eigenvalues": statistics.eigenvalues,
    }[kind]
    return (statistics.eigenvectors * scales).astype(np.float32)


@njit(nogil=True, cache=True)
def draw(
    seed: int, epoch: int, index: int, positions: int, sigma: float
) -> tuple[int, int, bool, tuple[float, float, float]]:
    """What is drawn for one sample in one epoch: top, left, mirror, alphas.

    top and left are uniform on 0..positions-1, mirror is true half the time, and the three alphas
    are normal with mean 0 and standard deviation `sigma`.
    """
    k0, k1 = key_words(seed)
    sample = index & WORD
    place = philox4x32(0, sample, epoch, CROP_AND_MIRROR, k0, k1)
    top = (place[0] * positions) >> 32
    left = (place[1] * positions) >> 32
    mirror = (place[2] >> 31) == 1

    # Box-Muller: two uniform numbers, the first never 0, give two normal ones.
    words = philox4x32(0, sample, epoch, COLOUR_NOISE, k0, k1)
    radius0 = sigma * math.sqrt(-2.0 * math.log((words[0] + 1) / TWO_TO_32))
    radius1 = sigma * math.sqrt(-2.0 * math.log((words[2] + 1) / TWO_TO_32))
    angle0 = 2.0 * math.pi * (words[1] / TWO_TO_32)
    angle1 = 2.0 * math.pi * (words[3] / TWO_TO_32)
    alphas = (radius0 * math.cos(angle0), radius0 * math.sin(angle0), radius1 * math.cos(angle1))
    return top, left, mirror, alphas


@njit(parallel=True, nogil=True, cache=True)
def augment_batch(
    images_BSSC: npt.NDArray[np.uint8],
    out_BHWC: npt.NDArray[np.float32],
    indices_B: npt.NDArray[np.int64],
    mean_SSC: npt.NDArray[np.float32],
    axes_33: npt.NDArray[np.float32],
    mirror: bool,
    sigma: float,
    seed: int,
    epoch: int,
) -> None:
    """Fill `out_BHWC` with augmented crops; its H = W is the crop. All arrays C-contiguous.

    images_BSSC: uint8 RGB; indices_B: int64, each image's index in the data set;
    mean_SSC: float32 mean image; axes_33: see noise_axes; sigma: standard deviation of the alphas.
    """
    side, crop = images_BSSC.shape[1], out_BHWC.shape[1]
    # Rows are one dimension, R G B R G B ..., so that the inner loop is over contiguous numbers.
    images = images_BSSC.reshape(len(images_BSSC), side, side * 3)
    out = out_BHWC.reshape(len(out_BHWC), crop, crop * 3)
    mean = mean_SSC.reshape(side, side * 3)
    for b in prange(len(indices_B)):
        top, left, turned, alphas = draw(seed, epoch, indices_B[b], side - crop + 1, sigma)
        noise = np.empty(crop * 3, np.float32)  # one row, the same three numbers in every pixel
        for c in range(3):
            shift = 0.0
            for i in range(3):
                shift += np.float64(axes_33[c, i]) * alphas[i]
            noise[c::3] = shift
        last = np.uintp(crop * 3 - 3)  # where a row's last pixel starts
        for y in range(crop):
            pixels = images[b, top + y, left * 3 : (left + crop) * 3]
            means = mean[top + y, left * 3 : (left + crop) * 3]
            row = out[b, y]
            if mirror and turned:
                # Unsigned indices: numba tests others for being negative, at twice the time.
                for x in range(np.uintp(0), np.uintp(crop * 3), np.uintp(3)):
                    for c in range(np.uintp(3)):
                        source = last - x + c
                        row[x + c] = np.float32(pixels[source]) - means[source] + noise[c]
            else:
                for i in range(crop * 3):
                    row[i] = np.float32(pixels[i]) - means[i] + noise[i]


class Augment(Operation):  # type: ignore[misc]
    """FFCV operation: uint8 [S,S,3] images in, float32 [crop,crop,3] out; ToTensor comes next.

    Set `epoch` before each pass over the loader. FFCV compiles its own operations with constants
    frozen in; this one stays outside, so that the epoch counts when a batch is made.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        mean_SSC: npt.NDArray[np.float32],
        axes_33: npt.NDArray[np.float32],
    ) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.mean_SSC = np.ascontiguousarray(mean_SSC, np.float32)
        self.axes_33 = np.ascontiguousarray(axes_33, np.float32)
        self.epoch = 0

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Raises UserError when the mean image is of another size or smaller than the crop."""
        crop, side = self.augmentation.crop, len(self.mean_SSC)
        if tuple(previous_state.shape) != self.mean_SSC.shape:
            raise UserError(
                f"the images are {tuple(map(int, previous_state.shape))}, the mean image is "
                f"{self.mean_SSC.shape}; use the statistics of the training data"
            )
        if not 0 < crop <= side:
            raise UserError(f"a crop of {crop} does not fit images of {side}x{side} pixels")
        shape, dtype = (crop, crop, 3), np.dtype(np.float32)
        state = dataclasses.replace(previous_state, jit_mode=False, shape=shape, dtype=dtype)
        return state, AllocationQuery(shape, dtype)

    def generate_code(self) -> Callable[..., npt.NDArray[np.float32]]:
        def augment(
            images_BSSC: npt.NDArray[np.uint8],
            out_BHWC: npt.NDArray[np.float32],
            indices_B: npt.NDArray[np.integer],
        ) -> npt.NDArray[np.float32]:
            augment_batch(
                images_BSSC,
                out_BHWC,
                indices_B.astype(np.int64),
                self.mean_SSC,
                self.axes_33,
                self.augmentation.mirror,
                self.augmentation.colour_noise,
                self.augmentation.seed,
                self.epoch,
            )
            return out_BHWC

        # FFCV passes the batch's sample indices to a function that says so.
        code: Any = augment
        code.with_indices = True
        return augment
