"""Draws one picture of a sample class: a big textured shape before a blurred background.

Takes a Recipe and a numpy Generator, gives uint8 RGB [H,W,3]; no files. Place, size, turn, luma,
light, background and noise are drawn at random and say nothing about the class.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from prep.motifs import COLOURS, SHAPES, TEXTURES, Floats, Points, Recipe

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; may leave the picture

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, what JPEG uses
SUPERSAMPLING = 2  # outlines are drawn this much larger, then averaged
BLUR = 5  # the background is drawn this much smaller, then enlarged
SIZES = ((500, 375), (375, 500), (200, 150), (800, 600))  # width, height in pixels
SIZE_SHARES = (0.72, 0.16, 0.06, 0.06)


# --------------------------------------------------------------------------- the picture


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where the shape lies: its centre and radius in pixels, its turn in radians."""

    x: float
    y: float
    radius: float
    turn: float

    def place(self, points: Points) -> Points:
        """Points of a shape's outline, in pixels of the picture."""
        cosine, sine = self.radius * math.cos(self.turn), self.radius * math.sin(self.turn)
        return [(self.x + a * cosine - b * sine, self.y + a * sine + b * cosine) for a, b in points]


def draw(recipe: Recipe, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one picture of the class: uint8 RGB [H,W,3], of varied size."""
    width, height = SIZES[rng.choice(len(SIZES), p=SIZE_SHARES)]
    size = int(width * rng.uniform(0.88, 1.08)), int(height * rng.uniform(0.88, 1.08))
    short = min(size)
    x, y = (side / 2 + short * rng.uniform(-0.08, 0.08) for side in size)
    pose = Pose(x, y, short * rng.uniform(0.33, 0.46), math.radians(rng.uniform(-18, 18)))

    box, mask = _mask(recipe.shape, pose)
    paint = _paint(recipe, rng, pose, box, period=short * rng.uniform(0.065, 0.085))
    light = _light(rng, (size[0] // BLUR + 1, size[1] // BLUR + 1))
    blurred = _background(rng, light.size)
    _cast_shadow(rng, blurred, mask, box)
    blurred = ImageChops.multiply(blurred, light)

    picture = blurred.resize(size, Image.Resampling.BILINEAR)
    left, top, right, bottom = (round(edge / BLUR) for edge in box)
    part = light.crop((left, top, right, bottom)).resize(paint.size, Image.Resampling.BILINEAR)
    picture.paste(ImageChops.multiply(paint, part), box[:2], mask)
    return _noisy(rng, picture)


def _mask(shape: str, pose: Pose) -> tuple[Box, Image.Image]:
    """The box that just holds the shape, and the shape in it, 255 on 0, anti-aliased: mode L."""
    outline, hole = (pose.place(points) for points in SHAPES[shape])
    xs, ys = zip(*outline, strict=True)
    left, top = math.floor(min(xs)), math.floor(min(ys))
    width, height = math.ceil(max(xs)) - left + 1, math.ceil(max(ys)) - top + 1
    large = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    for points, value in ((outline, 255), (hole, 0)):
        if points:
            scaled = [((x - left) * SUPERSAMPLING, (y - top) * SUPERSAMPLING) for x, y in points]
            ImageDraw.Draw(large).polygon(scaled, fill=value)
    return (left, top, left + width, top + height), large.reduce(SUPERSAMPLING)


def _paint(
    recipe: Recipe, rng: np.random.Generator, pose: Pose, box: Box, period: float
) -> Image.Image:
    """The texture all over the box, in two tones of the colour; `period` in pixels."""
    left, top, right, bottom = box
    columns = ((np.arange(left, right) - pose.x) / period).astype(np.float32)
    rows = ((np.arange(top, bottom) - pose.y) / period).astype(np.float32)[:, None]
    cosine, sine = np.float32(math.cos(pose.turn)), np.float32(math.sin(pose.turn))
    shift = rng.random(2, np.float32)
    u = columns * cosine + (rows * sine + shift[0])
    v = (rows * cosine + shift[1]) - columns * sine
    pattern = Image.fromarray(_bytes(TEXTURES[recipe.texture](u, v, period)))
    hue, luma = COLOURS[recipe.colour] + rng.uniform(-16, 16), rng.uniform(0.33, 0.52)
    darker, lighter = luma * rng.uniform(0.25, 0.45), luma + (1 - luma) * rng.uniform(0.6, 0.8)
    other, chroma = darker if rng.random() < 0.5 else lighter, rng.uniform(0.65, 1)
    figure, ground = (
        Image.new("RGB", pattern.size, tuple(_bytes(_rgb(hue, tone, chroma)).tolist()))
        for tone in (luma, other)
    )
    return Image.composite(figure, ground, pattern)


def _light(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Uneven light of a slight tint, as a factor of 255."""
    tint = rng.uniform(0.92, 1, 3) * rng.uniform(0.8, 1)
    coarse = tint * rng.uniform(rng.uniform(0.55, 0.95), 1, (2, 3, 1))
    return Image.fromarray(_bytes(coarse)).resize(size, Image.Resampling.BICUBIC)


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Muted colours and clutter, blurred as behind a lens that is focused nearer."""
    w, h = size
    base, other = _any_colour(rng), _any_colour(rng)
    cells = rng.integers(2, 6)
    coarse = base + (other - base) * rng.random((cells, cells + 1, 1))
    image = Image.fromarray(_bytes(coarse)).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(4, 16)):
        colour = tuple(_bytes(_any_colour(rng)).tolist())
        x, y, radius = rng.uniform(0, w), rng.uniform(0, h), min(w, h) * rng.uniform(0.02, 0.16)
        if rng.random() < 0.6:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        else:
            angle = rng.uniform(0, math.pi)
            dx, dy = 5 * radius * math.cos(angle), 5 * radius * math.sin(angle)
            pen.line((x - dx, y - dy, x + dx, y + dy), fill=colour, width=1 + int(radius / 2))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.8, 2)))


def _cast_shadow(rng: np.random.Generator, image: Image.Image, mask: Image.Image, box: Box) -> None:
    """Darken `image`, which is BLUR times smaller than the picture, behind the shape."""
    reach = image.height // 20
    dx, dy = rng.integers(-reach, reach + 1, 2)
    shade = Image.new("L", image.size)
    place = (round(box[0] / BLUR) + int(dx), round(box[1] / BLUR) + int(dy))
    shade.paste(mask.reduce(BLUR).point(lambda value: value * 5 // 8), place)
    image.paste((0, 0, 0), mask=shade.filter(ImageFilter.GaussianBlur(image.height / 40)))


def _noisy(rng: np.random.Generator, picture: Image.Image) -> npt.NDArray[np.uint8]:
    """The picture with uniform noise, as of a sensor, at most 4 to 16 grey levels off."""
    bits = int(rng.integers(3, 6))
    half = 1 << (bits - 1)
    pixels: npt.NDArray[np.uint8] = np.clip(np.asarray(picture), half, 255 - half)
    noise = np.frombuffer(rng.bytes(pixels.size), np.uint8).reshape(pixels.shape)
    pixels += noise >> (8 - bits)  # may pass 255 and wrap; the subtraction wraps it back
    pixels -= half
    return pixels


def _bytes(values: Floats) -> npt.NDArray[np.uint8]:
    """0..1 to 0..255."""
    scaled: npt.NDArray[np.uint8] = np.clip(values * 255, 0, 255).astype(np.uint8)
    return scaled


# --------------------------------------------------------------------------- colours


def _rgb(hue: float, luma: float, chroma: float) -> Floats:
    """The colour of this hue (degrees) and luma (0..1); `chroma` from 0, grey, to 1, full. [3]"""
    pure = np.clip(np.abs((hue / 60 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    own = float(pure @ LUMA)
    full = pure * luma / own if luma < own else 1 - (1 - pure) * (1 - luma) / (1 - own)
    colour: Floats = luma + (full - luma) * chroma
    return colour


def _any_colour(rng: np.random.Generator) -> Floats:
    """Any hue, muted, for what lies behind."""
    return _rgb(rng.uniform(0, 360), rng.uniform(0.15, 0.95), rng.uniform(0, 0.6))
