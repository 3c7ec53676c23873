"""What prep hands to train: file names, dtypes, versions.

Owned by prep, imported by train; numpy, the standard library, prep.files and prep.npz only.

A prepared set is `OUT/<split>/` (images), `OUT/<split>.parquet` (manifest), `OUT/<split>.json`
(card) and `OUT/train.stats.npz`. A beton `DIR/NAME.beton` has beside it `NAME.json` (card),
`NAME.records.npz` (pointer, size and crc32 of every sample) and `NAME.stats.npz` (statistics of
the training split).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep import npz
from prep.files import read_regular, reason, whole_file
from prep.program import UserError

if TYPE_CHECKING:  # half the time of `prep --help` otherwise
    import numpy as np
    import numpy.typing as npt

FORMAT_VERSION = 3  # of a card
STATISTICS_VERSION = 4
LARGEST_CARD = 1 << 28  # bytes; that of ImageNet has 100 KB
UNLABELLED = -1  # the label of pictures in a test split whose labels are not published


# --------------------------------------------------------------------------- card


@dataclasses.dataclass(frozen=True)
class ClassEntry:
    """One class: `wnid` is its folder's name, `name` is for people, `samples` counts this split."""

    wnid: str
    name: str
    samples: int


@dataclasses.dataclass(frozen=True)
class Card:
    """What a prepared split or a beton holds; `classes` are in label order."""

    split: str
    samples: int
    classes: tuple[ClassEntry, ...]
    side: int  # pixels
    mode: str  # "jpg" or "raw": how the bytes of a sample are stored
    quality: int  # of the prepared JPEGs, 1..100
    backend: str  # prep.images.BACKENDS: what decoded and resized
    filter: str  # the resize filter
    fit: str  # "crop": shorter side to `side`, centre crop; "squash": both sides to `side`
    exif: str  # "ignore": pixels as stored; "apply": turned upright
    source: str  # sha256 over the listing of the originals
    pixels_id: str  # see pixels_id()
    sha256: str | None  # of the beton; None for a prepared set
    tools: dict[str, str]  # versions of what made it
    order: str = "class"  # of the beton's samples: "class" or "shuffled" (prep.order)
    seed: int | None = None  # of the shuffle
    records_sha256: str | None = None  # of the beton's records.npz; None for a prepared set
    format_version: int = FORMAT_VERSION

    @property
    def labelled(self) -> bool:
        """False for a test split whose labels are not published: they are all UNLABELLED."""
        return not self.samples or any(entry.samples for entry in self.classes)

    def name_of(self, label: int) -> str:
        """A class for people. Raises IndexError for a label that is none."""
        if label == UNLABELLED and not self.labelled:
            return "no label"
        if label < 0:
            raise IndexError(f"label {label} is not one of {len(self.classes)} classes")
        return self.classes[label].name

    @property
    def class_names(self) -> list[str]:
        return [entry.name for entry in self.classes]


def write_card(card: Card, path: Path) -> None:
    """Write `card` as JSON with a checksum of its own; the same card gives the same bytes."""
    with whole_file(path) as partial:
        partial.write_text(card_text(card), encoding="utf-8")


def read_card(path: Path) -> Card:
    """Read a card.

    Raises UserError when it is missing, of another version, not a card or not as it was written.
    """
    try:
        text = read_regular(path, LARGEST_CARD).decode("utf-8")
        values: dict[str, Any] = json.loads(text)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: the card is written by `prep resize` and `prep write-beton`; "
            "run them again or copy the card along"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a card ({reason(error)}); make it again"
        ) from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version is None:
        raise UserError(
            f"{path} is no card of `prep resize` or `prep write-beton`; give what these wrote, or "
            "copy the card along"
        )
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, this program reads {FORMAT_VERSION}; "
            "prepare the data again with this version"
        )
    values.pop("checksum", None)
    if text != _checked_text(values):
        raise UserError(
            f"{path} is not as it was written (its checksum differs); copy it again or make it "
            "again"
        )
    try:
        values["classes"] = tuple(ClassEntry(**entry) for entry in values["classes"])
        return Card(**values)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not a whole card ({error}); make it again") from error


def card_text(card: Card) -> str:
    """A card as it is written: with a checksum, so that no byte of it changes unseen."""
    return _checked_text(dataclasses.asdict(card))


def _checked_text(values: dict[str, Any]) -> str:
    checksum = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return json.dumps(values | {"checksum": checksum}, indent=1, sort_keys=True) + "\n"


def pixels_id(labels: npt.NDArray[np.int64], digests: npt.NDArray[np.uint8]) -> str:
    """Name a set of labelled images by content, whatever their names, order or container.

    labels: int64 [N]; digests: uint8 [N,32], the sha256 of each image's stored bytes.
    Returns the sha256 over the sorted (label, digest) pairs, label as 8 bytes big-endian.
    """
    import numpy as np

    pairs = np.empty((len(labels), 40), np.uint8)
    pairs[:, :8] = labels.astype(">i8").view(np.uint8).reshape(-1, 8)
    pairs[:, 8:] = digests
    ordered = np.sort(pairs.view("V40").ravel())
    return hashlib.sha256(ordered.tobytes()).hexdigest()


# --------------------------------------------------------------------------- beside a beton


def card_path(beton: Path) -> Path:
    return beton.with_suffix(".json")


def read_beton_card(beton: Path) -> Card:
    """The card beside a beton. Raises UserError as read_card, and when the write did not end."""
    card = read_card(card_path(beton))
    if card.sha256 is None:
        raise UserError(
            f"{card_path(beton)} names no sha256: the writing of {beton.name} did not end; run "
            "`prep write-beton` again"
        )
    return card


def records_path(beton: Path) -> Path:
    return beton.with_suffix(".records.npz")


def stats_path(beton: Path) -> Path:
    return beton.with_suffix(".stats.npz")


@dataclasses.dataclass(frozen=True)
class Records:
    """Where each sample's bytes lie in the beton, in sample order."""

    ptr: npt.NDArray[np.uint64]  # [N] bytes from the file's start
    size: npt.NDArray[np.uint64]  # [N] bytes
    crc32: npt.NDArray[np.uint32]  # [N] of those bytes


def write_records(records: Records, path: Path) -> None:
    """Write records into a file of prep.files.whole_file."""
    import numpy as np

    with path.open("wb") as out:
        np.savez(out, ptr=records.ptr, size=records.size, crc32=records.crc32)


def read_records(path: Path) -> Records:
    """Read a records file. Raises UserError when it is missing or damaged."""
    remedy = "copy it along with the beton, or write the beton again with `prep write-beton`"
    arrays = npz.read(path, {"ptr": ("u8", 1), "size": ("u8", 1), "crc32": ("u4", 1)}, remedy)
    found = Records(ptr=arrays["ptr"], size=arrays["size"], crc32=arrays["crc32"])
    if not len(found.ptr) == len(found.size) == len(found.crc32):
        raise UserError(f"{path} is damaged (its arrays differ in length); {remedy}")
    return found


def read_records_of(beton: Path, card: Card) -> Records:
    """The records beside a beton, which its card names by their sha256.

    Raises UserError as read_records does, and when they are others.
    """
    path = records_path(beton)
    if path.is_file():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != card.records_sha256:
            raise UserError(
                f"{path} is not the file that {card_path(beton)} names (sha256 differs): "
                "it has changed, or beton, card and records are not of one make; copy all three "
                "again or write the beton again"
            )
    return read_records(path)


# --------------------------------------------------------------------------- statistics

STATISTICS = {
    "format_version": ("i8", 0),
    "count": ("i8", 0),
    "mean_image": ("f4", 3),
    "channel_mean": ("f8", 1),
    "covariance": ("f8", 2),
    "eigenvalues": ("f8", 1),
    "eigenvectors": ("f8", 2),
    "decoder": ("U", 0),
    "pixels_id": ("U", 0),
}


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of every pixel of the training split, RGB, 0..255.

    `eigenvectors` holds the principal axes in columns, `eigenvalues` falling; each axis has its
    largest component positive. The standard deviation along axis i is sqrt(eigenvalues[i]).
    """

    count: int  # images
    mean_image: npt.NDArray[np.float32]  # [S,S,3]
    channel_mean: npt.NDArray[np.float64]  # [3]
    covariance: npt.NDArray[np.float64]  # [3,3]
    eigenvalues: npt.NDArray[np.float64]  # [3]
    eigenvectors: npt.NDArray[np.float64]  # [3,3], columns
    decoder: str  # the JPEG decoder and its version
    pixels_id: str  # of the split that was measured

    @property
    def side(self) -> int:
        return int(self.mean_image.shape[0])

    @property
    def standard_deviations(self) -> npt.NDArray[np.float64]:
        """[3] along the principal axes, grey levels."""
        import numpy as np

        return np.sqrt(np.maximum(self.eigenvalues, 0.0))


def write_statistics(statistics: Statistics, path: Path) -> None:
    """Write statistics into a file of prep.files.whole_file; equal ones give the same bytes."""
    npz.save(path, {"format_version": STATISTICS_VERSION} | dataclasses.asdict(statistics))


def read_statistics(path: Path) -> Statistics:
    """Read statistics.

    Raises UserError when missing, of another version, or when a byte is not as it was written.
    """
    remedy = _measure_again(path)
    arrays = npz.read(path, STATISTICS, remedy)
    if (version := int(arrays["format_version"])) != STATISTICS_VERSION:
        raise UserError(
            f"{path} has format version {version}, this program reads {STATISTICS_VERSION}; "
            f"{remedy}"
        )
    if not npz.is_whole(arrays):
        raise UserError(
            f"{path} is not as it was written (its checksum differs); copy it again, or {remedy}"
        )
    values: dict[str, Any] = {f.name: arrays[f.name] for f in dataclasses.fields(Statistics)}
    return Statistics(**{name: v if v.ndim else v.item() for name, v in values.items()})


def read_statistics_of(card: Card, path: Path) -> Statistics:
    """Read the statistics of a card's own samples.

    Raises UserError as read_statistics, and when they are of other data.
    """
    statistics = read_statistics(path)
    if statistics.pixels_id != card.pixels_id:
        raise UserError(
            f"{path} is of other data (pixels_id {statistics.pixels_id[:12]}, the card says "
            f"{card.pixels_id[:12]}); {_measure_again(path)}"
        )
    return statistics


def _measure_again(path: Path) -> str:
    """The advice for statistics: of the beton that they lie beside, else of OUT/train."""
    name = path.name.removesuffix(".stats.npz")
    beton = path.with_name(f"{name}.beton")
    return f"run `prep stats {beton if beton.exists() else path.with_name(name)}` again"
