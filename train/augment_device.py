"""The augmentation of train/augment.py as tensor operations, on any device, eager or compiled.

Takes the stored uint8 images [B,S,S,3] as they come from the decoder and gives what the CPU's
kernel gives, to rounding, as [B,3,crop,crop] in channels_last. Nothing waits for the device and
nothing branches on values, so torch.compile makes a few kernels of it, once for all epochs.

Images of another side than `image_side` are resized to it first, as floats that are not rounded,
and so is the mean image: resizing is linear, so the mean of the resized images is the resized mean.
Colour statistics, those of the training set and those of each image, stay those of the stored
pixels.

Sources: as train/augment.py.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from prep.handover import Statistics
from prep.program import UserError
from train.augmentation import Augmentation, mean_picture
from train.colour import image_axes_torch, noise_axes, real_dtype
from train.philox import COLOUR_NOISE, CROP_AND_MIRROR, TWO_TO_32, WORD, key_words, philox4x32_torch


def to_side(images_BSSC: torch.Tensor, side: int) -> torch.Tensor:
    """Square images of another side, any number type, to float32 [B,side,side,3].

    Bilinear, antialiased where it makes smaller. Images of that side are returned as they are.
    """
    if images_BSSC.shape[1] == side:
        return images_BSSC
    images_BCSS = images_BSSC.permute(0, 3, 1, 2).float()
    resized = F.interpolate(images_BCSS, (side, side), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1)


class DeviceAugment(nn.Module):
    """Training images as the network takes them; `.to(device)` moves the mean image and axes.

    `dtype`: of the result. Raises UserError when the crop does not fit the images' side.
    """

    mean: torch.Tensor  # float32, "matched": [side,side,3]; "centre": [crop,crop,3]
    axes: torch.Tensor  # float32 [3,3,1], axis by axis, see noise_axes
    places: torch.Tensor  # int64 [crop], 0..crop-1

    def __init__(
        self,
        augmentation: Augmentation,
        statistics: Statistics,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        crop, side = augmentation.crop, augmentation.image_side
        if crop > side:
            raise UserError(f"a crop of {crop} does not fit images of {side}x{side} pixels")
        self.augmentation, self.side, self.dtype = augmentation, side, dtype
        picture_SSC = mean_picture(augmentation.mean, statistics.mean_image)
        mean_SSC = to_side(torch.from_numpy(picture_SSC)[None], side)[0]
        if augmentation.mean == "centre":
            window = slice((side - crop) // 2, (side - crop) // 2 + crop)
            mean_SSC = mean_SSC[window, window]
        self.register_buffer("mean", mean_SSC.contiguous(), persistent=False)
        axes = torch.zeros(3, 3)
        if augmentation.noise in ("standard-deviations", "eigenvalues"):
            axes = torch.from_numpy(noise_axes(statistics, augmentation.noise))
        self.register_buffer("axes", axes.T[:, :, None].contiguous(), persistent=False)
        # A buffer: torch.compile's index arithmetic on an arange overflows 32 bits in Philox.
        self.register_buffer("places", torch.arange(crop), persistent=False)

    def forward(
        self, images_BSSC: torch.Tensor, samples_B: torch.Tensor, epoch: torch.Tensor
    ) -> torch.Tensor:
        """Stored uint8 images to `dtype` [B,3,crop,crop], channels_last.

        samples_B: int64, the images' indices in the data set. epoch: int64 []; a tensor, because
        torch.compile would compile anew for each number. All are on the module's device.
        """
        what, real = self.augmentation, real_dtype(images_BSSC.device)
        plain = 1 / what.pixel_divisor
        top, left, turned, alphas = draw_torch(
            what, samples_B, epoch, self.side - what.crop + 1, real
        )
        rows = top[:, None] + self.places
        forwards = (
            self.places
            if not what.mirror
            else torch.where(turned[:, None], what.crop - 1 - self.places, self.places)
        )
        columns = left[:, None] + forwards
        place = rows[:, :, None], columns[:, None, :]
        x_BHWC = _at(to_side(images_BSSC, self.side), *place).float()
        # The authors take the centre of the mean off after mirroring; the paper's, at the crop's
        # own place, is mirrored with it.
        mean_BHWC = self.mean if what.mean == "centre" else self.mean[place]
        if what.sigma == 0:
            out_BHWC = (x_BHWC - mean_BHWC) * plain
        else:
            own = what.noise == "per-image"
            axes = image_axes_torch(images_BSSC) if own else self.axes.to(real).unbind(0)
            first, second, third = (axis * a for axis, a in zip(axes, alphas, strict=True))
            noise_3B = first + second + third
            noise_B11C = noise_3B.T.float()[:, None, None, :]
            scale: float | torch.Tensor = plain / what.noise_divisor
            if what.noise_until:
                noisy = epoch < what.noise_until
                noise_B11C, scale = noise_B11C * noisy, torch.where(noisy, scale, plain)
            if own:
                out_BHWC = (x_BHWC + noise_B11C).clamp(0, 255) - mean_BHWC
            else:
                out_BHWC = x_BHWC - mean_BHWC + noise_B11C
            out_BHWC = out_BHWC * scale
        return out_BHWC.to(self.dtype).permute(0, 3, 1, 2)  # NHWC in memory: channels_last


def _at(images_BSSC: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Of each image its own rows [B,H,1] and columns [B,1,W]: [B,H,W,3]."""
    numbers = torch.arange(len(images_BSSC), device=images_BSSC.device)[:, None, None]
    return images_BSSC[numbers, rows, columns]


def crops_at(
    images_BSSC: torch.Tensor, top_B: torch.Tensor, left_B: torch.Tensor, crop: int
) -> torch.Tensor:
    """A crop of each image at its own place, [B,crop,crop,3]."""
    places = torch.arange(crop, device=images_BSSC.device)
    rows, columns = top_B[:, None] + places, left_B[:, None] + places
    return _at(images_BSSC, rows[:, :, None], columns[:, None, :])


def places_torch(
    seed: int, samples_B: torch.Tensor, positions: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where training's first epoch has its crops, top and left in 0..positions-1, [B] each."""
    what = Augmentation(crop=1, mirror=False, colour_noise=0.0, seed=seed)
    epoch = torch.zeros((), dtype=torch.int64, device=samples_B.device)
    top, left, _, _ = draw_torch(what, samples_B, epoch, positions, torch.float32)
    return top, left


def draw_torch(
    what: Augmentation,
    samples_B: torch.Tensor,
    epoch: torch.Tensor,
    positions: int,
    real: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """train.augment.draw for a batch: top, left, mirror and three alphas, each [B]."""
    key = key_words(what.seed)
    group = (samples_B // what.share) & WORD
    place = philox4x32_torch((0, group, epoch, CROP_AND_MIRROR), key)
    top, left = ((place[i] * positions) >> 32 for i in (0, 1))
    turned = (place[2] >> 31) == 1

    words = philox4x32_torch((0, samples_B & WORD, epoch, COLOUR_NOISE), key)
    uniform = [word.to(real) / TWO_TO_32 for word in words]
    radius0, radius1 = (
        what.sigma * torch.sqrt(-2.0 * torch.log(uniform[i] + 1 / TWO_TO_32)) for i in (0, 2)
    )
    angle0, angle1 = (2.0 * math.pi * uniform[i] for i in (1, 3))
    return (
        top,
        left,
        turned,
        [radius0 * torch.cos(angle0), radius0 * torch.sin(angle0), radius1 * torch.cos(angle1)],
    )
