"""The betons of a report: those that were named, else those that the run says it was given.

What cannot be used is a Missing with the reason, which the report shows in the place of pictures; a
beton that the command line names must be right.
"""

from __future__ import annotations

import dataclasses
import mmap
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prep import images
from prep.program import UserError
from train.checkpoint import Checkpoint
from train.dataset import Dataset, check_same_classes, open_dataset
from train.provenance import Beton
from train.report.gather import Run

Pixels = npt.NDArray[np.uint8]  # [S,S,3] RGB


@dataclasses.dataclass(frozen=True)
class Missing:
    """Why there is no data; a sentence."""

    reason: str


def training_data(run: Run, named: Path | None) -> Dataset | Missing:
    """Raises UserError when `named` is not what the run was trained on."""
    known = run.starts[-1].train if run.starts else None
    return _opened(run, named, known, "--beton", run.checkpoint.data.pixels_id)


def validation_data(run: Run, named: Path | None) -> Dataset | Missing:
    """Raises UserError when `named` cannot be used; it may be other data than the run looked at."""
    known = next((start.val for start in reversed(run.starts) if start.val), None)
    if named is None and run.starts and known is None:
        return Missing("The run had no validation data; --val-beton FILE.beton names some.")
    wanted = None if named else run.checkpoint.val_pixels_id or None
    return _opened(run, named, known, "--val-beton", wanted)


def _opened(
    run: Run, named: Path | None, known: Beton | None, option: str, pixels_id: str | None
) -> Dataset | Missing:
    if named is not None:
        return _checked(named, run.checkpoint, pixels_id)
    if known is None:
        return Missing(f"The run does not say where its data is; {option} FILE.beton names it.")
    try:
        return _checked(Path(known.path), run.checkpoint, pixels_id)
    except (UserError, OSError) as error:
        return Missing(
            f"The run's data cannot be used any more ({error}); {option} FILE.beton names it."
        )


def _checked(path: Path, checkpoint: Checkpoint, pixels_id: str | None) -> Dataset:
    dataset = open_dataset(path)
    check_same_classes(dataset.card, checkpoint.data.wnids, checkpoint.data.side, str(path))
    if pixels_id is not None and dataset.card.pixels_id != pixels_id:
        raise UserError(
            f"{path} holds other data (pixels_id {dataset.card.pixels_id[:12]}) than the run was "
            f"given ({pixels_id[:12]}); give that beton"
        )
    return dataset


def read_pictures(dataset: Dataset, samples: Sequence[int]) -> list[Pixels]:
    """The samples' pixels as the trainer's decoder gives them, checked as it checks them.

    Raises UserError for a damaged record.
    """
    records, card, found = dataset.records, dataset.card, []
    with (
        dataset.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as beton,
    ):
        for sample in samples:
            place, size = int(records.ptr[sample]), int(records.size[sample])
            data = beton[place : place + size]
            if zlib.crc32(data) != int(records.crc32[sample]):
                raise UserError(
                    f"{dataset.path}: sample {sample}: its crc32 is not the one that was written; "
                    "copy it again, or write it again with `prep write-beton`"
                )
            if card.mode == "raw":
                found.append(np.frombuffer(data, np.uint8).reshape(card.side, card.side, 3))
            else:
                found.append(images.decode_as_ffcv(data))
    return found


def spread(labels: npt.NDArray[np.int64], count: int) -> list[int]:
    """At most `count` samples: one of each class in turn, spread evenly over classes and file."""
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(by_class) > count:  # take every so many
        by_class = [by_class[i * len(by_class) // count] for i in range(count)]
    rounds = -(-count // len(by_class))
    return [
        int(samples[turn * len(samples) // min(rounds, len(samples))])
        for turn in range(rounds)
        for samples in by_class
        if turn < len(samples)
    ][:count]
