"""A whole picture to SxS: which of its pixels are used, and how they are mixed.

Three backends, each for two fits: `crop` takes the shorter side to S and cuts the centre out,
`squash` takes both sides to S.

- turbo: the picture of Pillow's antialiased bilinear filter within 2 grey levels, of which the
  centre alone is computed (prep.bilinear).
- pillow: what torchvision's Resize(S) and CenterCrop(S) make of a Pillow image, bit for bit.
- opencv-2012: what the authors of Krizhevsky et al. 2012 did (akrizhevsky/cuda-convnet2,
  make-data): shorter side to S, the longer one rounded; INTER_AREA to shrink, INTER_CUBIC to
  enlarge; the crop's corner rounded down.

A picture thousands of times longer than wide would be resized to billions of pixels before the
crop. turbo never has more than the crop; for the other two see pillow() and opencv().
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

MAX_RESIZED = 40_000_000  # pixels of a whole resized picture, before its centre is cut out


def turbo(pixels_HW4: Pixels, side: int, fit: str) -> Pixels:
    """uint8 [H,W,4] to [S,S,3]; the fourth byte of a pixel is left out."""
    from prep import bilinear  # half a second, which the other backends need not wait for

    height, width = pixels_HW4.shape[:2]
    new_width, new_height, left, top = _torchvision_geometry(width, height, side, fit)
    if max(width / new_width, height / new_height) > bilinear.MAX_SCALE:
        return pillow(Image.fromarray(pixels_HW4[..., :3]), side, fit)
    rows = bilinear.taps(height, new_height, top, side)
    columns = bilinear.taps(width, new_width, left, side)
    return bilinear.resample(pixels_HW4, rows, columns)


def _torchvision_geometry(
    width: int, height: int, side: int, fit: str
) -> tuple[int, int, int, int]:
    """Width and height of the whole resized picture; left and top of the centre crop in it."""
    if fit == "squash":
        return side, side, 0, 0
    shorter = min(width, height)
    new_width, new_height = side * width // shorter, side * height // shorter
    return new_width, new_height, round((new_width - side) / 2), round((new_height - side) / 2)


def pillow(image: Image.Image, side: int, fit: str) -> Pixels:
    """Mode RGB to uint8 [S,S,3].

    The whole picture is resized, then cropped, as torchvision does it. Where that would make more
    than MAX_RESIZED pixels, the crop alone is computed: `box` is that crop in the coordinates of
    the original, where another rounding may change a pixel by one grey level.
    """
    width, height = image.size
    new_width, new_height, left, top = _torchvision_geometry(width, height, side, fit)
    if new_width * new_height <= MAX_RESIZED:
        whole = image.resize((new_width, new_height), Image.Resampling.BILINEAR)
        return np.asarray(whole.crop((left, top, left + side, top + side)))
    scale_x, scale_y = width / new_width, height / new_height
    box = (left * scale_x, top * scale_y, (left + side) * scale_x, (top + side) * scale_y)
    box = (box[0], box[1], min(box[2], width), min(box[3], height))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box))


def opencv(pixels_HW4: Pixels, side: int, fit: str) -> Pixels:
    """uint8 [H,W,4] to [S,S,3].

    Where the whole resized picture would have more than MAX_RESIZED pixels, the ends of the
    longer side are cut off before, beyond twice the shorter one, which leaves the middle where it
    was to half a pixel.
    """
    import cv2

    cv2.setNumThreads(1)  # prep has workers
    height, width = pixels_HW4.shape[:2]
    shorter = min(width, height)
    scale = side / shorter
    new_width, new_height = (
        (side, side) if fit == "squash" else (int(scale * width + 0.5), int(scale * height + 0.5))
    )
    if new_width * new_height > MAX_RESIZED:
        x, y = max(width - 2 * shorter, 0) // 2, max(height - 2 * shorter, 0) // 2
        return opencv(pixels_HW4[y : height - y, x : width - x], side, fit)
    how = cv2.INTER_AREA if shorter > side else cv2.INTER_CUBIC
    if shorter == side and fit == "crop":
        how = cv2.INTER_LINEAR  # what the authors' converter names where nothing is resized
    pixels_HWC = cv2.cvtColor(pixels_HW4, cv2.COLOR_RGBA2RGB)  # of four channels cubic differs
    whole = cv2.resize(pixels_HWC, (new_width, new_height), interpolation=how)
    left, top = (new_width - side) // 2, (new_height - side) // 2
    return np.ascontiguousarray(whole[top : top + side, left : left + side])


def opencv_version() -> str:
    import cv2

    return str(cv2.__version__)
