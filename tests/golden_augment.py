"""One drawn picture through 32 epochs of the paper's augmentation, as it was and should stay.

`python tests/golden_augment.py` writes golden_augment.png anew; look at it before it is committed.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from prep.handover import Statistics
from train.augment import augment_image, tables
from train.augmentation import Augmentation

GOLDEN = Path(__file__).with_suffix(".png")
SIDE, CROP, EPOCHS, ROW = 40, 32, 32, 8
SEED, SAMPLE = 1729, 1_281_166


def picture() -> npt.NDArray[np.uint8]:
    """A sky that darkens to the right, a sun on its left, a red house, green ground."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.stack([120 - 2 * x, 170 - 2 * x, 255 - 3 * x], axis=2).astype(np.uint8)
    image[(y - 10) ** 2 + (x - 11) ** 2 < 25] = 250, 220, 60
    image[28:] = 60, 130, 50
    image[18:30, 22:34] = 170, 50, 40
    image[23:30, 25:28] = 40, 30, 30
    return image


def statistics() -> Statistics:
    """A grey mean image; axes and deviations near those of ImageNet."""
    axes = np.array([[0.56, 0.71, 0.42], [0.58, 0.02, -0.82], [0.59, -0.70, 0.40]])
    eigenvalues = np.array([122.0, 37.0, 20.0]) ** 2
    return Statistics(
        count=1,
        mean_image=np.full((SIDE, SIDE, 3), 118, np.float32),
        channel_mean=np.full(3, 118.0),
        covariance=axes @ np.diag(eigenvalues) @ axes.T,
        eigenvalues=eigenvalues,
        eigenvectors=axes,
        decoder="none",
        pixels_id="none",
    )


def sheet() -> npt.NDArray[np.uint8]:
    """Epochs 0 to 31 of the picture, eight to a row, put back to 0..255: uint8 [128,256,3]."""
    run = tables(Augmentation(CROP, True, 0.1, SEED), statistics())
    crops = np.empty((EPOCHS, CROP, CROP, 3), np.float32)
    for epoch in range(EPOCHS):
        augment_image(picture(), crops[epoch], SAMPLE, epoch, run)
    pixels = np.clip(np.rint(crops + 118), 0, 255).astype(np.uint8)
    rows = pixels.reshape(EPOCHS // ROW, ROW, CROP, CROP, 3).swapaxes(1, 2)
    return rows.reshape(EPOCHS // ROW * CROP, ROW * CROP, 3)


if __name__ == "__main__":
    Image.fromarray(sheet()).save(GOLDEN)
