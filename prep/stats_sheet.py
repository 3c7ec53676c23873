"""A picture of statistics: mean image, principal axes as colours, what colour noise does.

Colour noise as the trainer adds it (Krizhevsky et al. 2012, section 4.1, with standard deviations,
as in the authors' code): alpha_i times the standard deviation along axis i, alpha_i ~ N(0, 0.1),
the same colour at every pixel. The columns are draws of -3, -1, 0, 1 and 3 standard deviations of
alpha, -0.3 to 0.3; a row varies one alpha, the last row all three alike. Values are clipped to
0..255 here, since it is a picture; the trainer clips nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from prep.handover import Statistics
from prep.program import counted
from prep.sheet import font

Pixels = npt.NDArray[np.uint8]

NOISE = 0.1  # standard deviation of alpha, section 4.1
DRAWS = (-3, -1, 0, 1, 3)  # standard deviations of alpha; of the axis, on the ramps
REACH = 3  # standard deviations to each side on a ramp

MARGIN, GAP = 24, 8  # pixels, like all below
LABELS = 132  # the column that names the rows
CELL = 176  # a picture with noise, square
LINE, HEADING = 20, 26  # of text
WIDTH = 2 * MARGIN + LABELS + len(DRAWS) * (CELL + GAP) - GAP
MEAN = LABELS + CELL  # the mean image, square, above the labels and the first column
RAMP_LEFT = MARGIN + MEAN + 3 * GAP
RAMP_WIDTH, RAMP_HEIGHT = WIDTH - MARGIN - RAMP_LEFT, 44
RAMP_STEP = (MEAN + LINE) // 3  # from one ramp's title to the next one's
NOISE_TOP = MARGIN + HEADING + MEAN + 2 * LINE + GAP
GRID_TOP = NOISE_TOP + HEADING + 3 * LINE + GAP
HEIGHT = GRID_TOP + 4 * (CELL + GAP) - GAP + MARGIN

ABOUT_NOISE = (
    "To every pixel of the set's first picture one colour is added: alpha times an axis's standard "
    "deviation, along that axis.",
    f"Training draws each alpha anew from N(0, {NOISE}): two of three lie within ±{NOISE}, all but "
    f"3 in 1,000 within ±{REACH * NOISE:.1f}. On the left: how far ±{REACH * NOISE:.1f} moves a "
    "colour.",
)


def noisy(picture: Pixels, statistics: Statistics, alphas: npt.NDArray[np.float64]) -> Pixels:
    """uint8 [S,S,3] with colour noise: alphas [3] times the standard deviations, along the axes."""
    colour = statistics.eigenvectors @ (alphas * statistics.standard_deviations)
    return displayed(picture + colour)


def ramp(statistics: Statistics, axis: int, width: int) -> Pixels:
    """uint8 [1,width,3]: the mean colour, and up to REACH standard deviations along the axis."""
    steps = np.linspace(-REACH, REACH, width) * statistics.standard_deviations[axis]
    return displayed(
        statistics.channel_mean + steps[None, :, None] * statistics.eigenvectors[:, axis]
    )


def displayed(values: npt.NDArray[np.floating]) -> Pixels:
    """Grey levels as a picture has them."""
    pixels: Pixels = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return pixels


def statistics_sheet(statistics: Statistics, picture: Pixels) -> Image.Image:
    """All of it; `picture`, uint8 [S,S,3], gets the noise."""
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(sheet)
    _draw_mean(sheet, draw, statistics)
    for axis in range(3):
        _draw_ramp(sheet, draw, statistics, axis)
    _draw_noise(sheet, draw, statistics, picture)
    return sheet


def _draw_mean(sheet: Image.Image, draw: ImageDraw.ImageDraw, statistics: Statistics) -> None:
    draw.text((MARGIN, MARGIN), "Mean image", fill="black", font=font(15))
    sheet.paste(_square(displayed(statistics.mean_image), MEAN), (MARGIN, MARGIN + HEADING))
    red, green, blue = statistics.channel_mean
    count = counted(statistics.count, "image")
    text = f"{count}, mean red {red:.1f}, green {green:.1f}, blue {blue:.1f}"
    top = MARGIN + HEADING + MEAN + 4
    draw.text((MARGIN, top), text, fill="black", font=font(12))


def _draw_ramp(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, statistics: Statistics, axis: int
) -> None:
    if axis == 0:
        title = "Principal axes of the colours: mean ± 3 standard deviations, clipped to 0..255"
        draw.text((RAMP_LEFT, MARGIN), title, fill="black", font=font(15))
    top = MARGIN + HEADING + axis * RAMP_STEP
    red, green, blue = statistics.eigenvectors[:, axis]
    text = (
        f"axis {axis + 1}: red {red:+.3f}, green {green:+.3f}, blue {blue:+.3f}; standard "
        f"deviation {statistics.standard_deviations[axis]:.1f} grey levels"
    )
    draw.text((RAMP_LEFT, top), text, fill="black", font=font(12))
    colours = Image.fromarray(ramp(statistics, axis, RAMP_WIDTH))
    top += LINE
    sheet.paste(colours.resize((RAMP_WIDTH, RAMP_HEIGHT)), (RAMP_LEFT, top))
    bottom = top + RAMP_HEIGHT
    draw.rectangle((RAMP_LEFT, top, WIDTH - MARGIN - 1, bottom - 1), outline="black")
    for step in range(-REACH, REACH + 1):
        place = RAMP_LEFT + (step + REACH) * (RAMP_WIDTH - 1) // (2 * REACH)
        draw.line((place, bottom, place, bottom + 4), fill="black")
        anchor = {-REACH: "la", REACH: "ra"}.get(step, "ma")
        draw.text(
            (place, bottom + 5),
            f"{step:+d}" if step else "0",
            fill="black",
            font=font(11),
            anchor=anchor,
        )


def _draw_noise(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, statistics: Statistics, picture: Pixels
) -> None:
    draw.text((MARGIN, NOISE_TOP), "Colour noise", fill="black", font=font(15))
    for number, line in enumerate(ABOUT_NOISE):
        place = (MARGIN, NOISE_TOP + HEADING + number * LINE)
        draw.text(place, line, fill="black", font=font(12))
    rows = [(f"axis {axis + 1} alone", np.eye(3)[axis]) for axis in range(3)]
    rows.append(("all three alike", np.ones(3)))
    for row, (name, which) in enumerate(rows):
        top = GRID_TOP + row * (CELL + GAP)
        draw.text((MARGIN, top + CELL // 2), name, fill="black", font=font(13), anchor="ld")
        moved = REACH * NOISE * np.linalg.norm(which * statistics.standard_deviations)
        place = (MARGIN, top + CELL // 2 + GAP // 2)
        draw.text(place, f"± {moved:.1f} grey levels", fill="dimgrey", font=font(12))
        for column, step in enumerate(DRAWS):
            left = MARGIN + LABELS + column * (CELL + GAP)
            if row == 0:
                text = f"alpha {NOISE * step:+.1f}" if step else "as it is"
                place = (left + CELL // 2, top - 4)
                draw.text(place, text, fill="black", font=font(13), anchor="md")
            cell = noisy(picture, statistics, NOISE * step * which)
            sheet.paste(_square(cell, CELL), (left, top))


def _square(pixels: Pixels, side: int) -> Image.Image:
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
