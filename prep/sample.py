"""Draws a small data set in ImageNet's shape, so that everything can be tried without a download.

Gives OUT/train/<wnid>/<wnid>_<n>.JPEG, OUT/val/<wnid>/SAMPLE_val_<n>.JPEG and OUT/words.txt
(`wnid<TAB>name`). The wnids n90000001... are not WordNet's. The training split has the odd files
that ImageNet has: grey, CMYK, a PNG called .JPEG, an EXIF rotation, and one file that is cut
short and cannot be decoded.
"""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from prep.drawing import draw
from prep.files import naming, whole_folder
from prep.motifs import Recipe, recipes
from prep.program import UserError
from prep.progress import Report
from prep.units import run_units

LIMITS = {"classes": (2, 1000), "per_class": (4, 10_000), "val_per_class": (1, 10_000)}
UNIT_PICTURES = 50  # about a second of work
QUALITIES = (75, 95)  # of the JPEGs
FULL_CHROMA_SHARE = 0.1  # of the JPEGs are 4:4:4, the others 4:2:0
EXIF_ORIENTATION = 0x0112  # the tag; its value 6 asks for a quarter turn clockwise
CUT = 0.6  # of the truncated file is there

# Kind of odd file: one in so many training pictures, but at least one. ImageNet has 1 to 2 % grey
# files; the others are rare there and more frequent here, to be met in a small set.
ODD_KINDS = {"grey": 100, "CMYK": 400, "PNG": 400, "EXIF-rotated": 400}
TRUNCATED = "truncated"  # exactly one


@dataclasses.dataclass(frozen=True)
class SampleSummary:
    """What was drawn: files in both splits, classes, and the odd files by kind."""

    images: int
    classes: int
    odd: dict[str, int]


@dataclasses.dataclass(frozen=True)
class _Picture:
    """One file to draw. `key` seeds its generator, so no file depends on another or on order."""

    path: Path
    recipe: Recipe
    key: tuple[int, int, int, int]  # seed, split, class, index
    kind: str = ""  # of ODD_KINDS, or TRUNCATED, or none of them


def draw_sample(
    out: Path,
    classes: int,
    per_class: int,
    val_per_class: int,
    seed: int,
    jobs: int | None,
    report: Report,
) -> SampleSummary:
    """Draw the data set into the new folder `out`; `report` gets the number of pictures done.

    The same arguments give the same bytes with any number of jobs. `out` appears when it is
    whole: a run that is killed leaves OUT.partial, which the next run removes.
    Raises UserError when `out` is in use or cannot be written, or a count is out of its limits.
    """
    _check_counts(classes=classes, per_class=per_class, val_per_class=val_per_class)
    if seed < 0:
        raise UserError(f"seed is {seed}; give 0 or more")
    with whole_folder(out.resolve()) as folder, naming(out):  # of a write that fails, the disk full
        pictures = _plan(folder, classes, per_class, val_per_class, seed)
        for parent in {picture.path.parent for picture in pictures}:
            parent.mkdir(parents=True)
        words = (f"{_wnid(i)}\t{recipe.name}\n" for i, recipe in enumerate(recipes(classes)))
        (folder / "words.txt").write_text("".join(words), encoding="utf-8")
        starts = range(0, len(pictures), UNIT_PICTURES)
        units = (pictures[start : start + UNIT_PICTURES] for start in starts)
        for done in run_units(_draw_unit, units, jobs):
            report(done)
    odd = Counter(picture.kind for picture in pictures if picture.kind)
    return SampleSummary(
        len(pictures), classes, {kind: odd[kind] for kind in (*ODD_KINDS, TRUNCATED)}
    )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        low, high = LIMITS[name]
        if not low <= count <= high:
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} is {count}; give a number from {low} to {high}")


# --------------------------------------------------------------------------- the files


def _wnid(label: int) -> str:
    return f"n9{label + 1:07d}"


def _plan(
    folder: Path, classes: int, per_class: int, val_per_class: int, seed: int
) -> list[_Picture]:
    """Every file of both splits; the odd ones are chosen from the seed."""
    train, val = [], []
    for label, recipe in enumerate(recipes(classes)):
        wnid = _wnid(label)
        for i in range(per_class):
            path = folder / "train" / wnid / f"{wnid}_{i + 1}.JPEG"
            train.append(_Picture(path, recipe, (seed, 0, label, i)))
        for i in range(val_per_class):
            # Numbers run across the classes, as in ILSVRC2012_val_00000001.JPEG.
            path = folder / "val" / wnid / f"SAMPLE_val_{i * classes + label + 1:08d}.JPEG"
            val.append(_Picture(path, recipe, (seed, 1, label, i)))
    kinds = [TRUNCATED]
    for kind, one_in in ODD_KINDS.items():
        kinds += [kind] * max(1, len(train) // one_in)
    chosen = np.random.default_rng([seed, 2]).permutation(len(train))  # 2: neither split
    for i, kind in zip(chosen, kinds, strict=False):
        train[i] = dataclasses.replace(train[i], kind=kind)
    return train + val


def _draw_unit(pictures: Sequence[_Picture]) -> int:
    """Draw and write the pictures; gives their number."""
    for picture in pictures:
        rng = np.random.default_rng(picture.key)
        pixels = draw(picture.recipe, rng)
        picture.path.write_bytes(_encode(pixels, picture.kind, rng))
    return len(pictures)


def _encode(pixels: npt.NDArray[np.uint8], kind: str, rng: np.random.Generator) -> bytes:
    """The bytes of a file of this kind; pixels: uint8 RGB [H,W,3]."""
    quality = int(rng.integers(QUALITIES[0], QUALITIES[1] + 1))
    if kind in ODD_KINDS:
        return _encode_odd(pixels, kind, quality)
    subsampling = "444" if rng.random() < FULL_CHROMA_SHARE else "420"
    jpeg: bytes = simplejpeg.encode_jpeg(pixels, quality, "RGB", subsampling)
    return jpeg[: int(CUT * len(jpeg))] if kind == TRUNCATED else jpeg


def _encode_odd(pixels: npt.NDArray[np.uint8], kind: str, quality: int) -> bytes:
    image, stream = Image.fromarray(pixels), io.BytesIO()
    match kind:
        case "grey":
            image.convert("L").save(stream, "JPEG", quality=quality)
        case "CMYK":  # Pillow writes it inverted, with Adobe's marker, as Photoshop does
            image.convert("CMYK").save(stream, "JPEG", quality=quality)
        case "PNG":
            image.save(stream, "PNG", compress_level=1)
        case "EXIF-rotated":  # stored a quarter turn anticlockwise; the tag asks to turn it back
            exif = Image.Exif()
            exif[EXIF_ORIENTATION] = 6
            turned = image.transpose(Image.Transpose.ROTATE_90)
            turned.save(stream, "JPEG", quality=quality, exif=exif)
        case _:
            raise ValueError(f"no odd kind {kind!r}")
    return stream.getvalue()
