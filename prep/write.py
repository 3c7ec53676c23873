"""Stage three: a prepared split into `NAME.beton`, with card, records and statistics beside it.

The prepared JPEGs' bytes go into the file as they are. FFCV's own DatasetWriter is not used: it
takes pixels and encodes them a second time, gives pages to whichever worker comes first, so that
two writes differ, and waits for ever when a worker dies. All sizes being known from the manifest,
the layout is planned first and the file is written front to back in one pass.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from prep import beton, handover, images, prepared
from prep.files import whole_file
from prep.handover import Card, Records, Statistics
from prep.prepared import PreparedSplit
from prep.program import UserError
from prep.progress import progress
from prep.stats import read_sample
from prep.units import worker_count

RAW_TOOL = "raw pixels"  # in a card: what decoded them
CHUNK = 64  # samples read by one thread at a time: 2 MB of JPEGs, 13 MB of raw pixels


def write_beton(folder: Path, path: Path, mode: str, jobs: int | None) -> tuple[Card, bool]:
    """Write the prepared split `folder` as `path`, and its card, records and statistics.

    Returns the card, and whether there were statistics of the training split to copy along.
    Raises UserError when the prepared split is damaged or has changed, its statistics are of
    other data, or `path` cannot be written.
    """
    split = prepared.open_prepared(folder)
    _check_name(split, path)
    if len(split) == 0:
        raise UserError(f"{folder} holds no samples; see rejects.jsonl beside it")
    statistics = _statistics_of(split)
    side = split.card.side
    sizes = split.sizes if mode == "jpg" else np.full(len(split), side * side * 3)
    layout = beton.plan_layout(sizes.astype(np.uint64))
    crc32 = np.empty(len(split), np.uint32)
    with whole_file(path) as partial:
        with partial.open("wb") as out, progress(f"write {path.name}", len(split)) as report:
            file = _HashedFile(out)
            file.write(beton.head(layout, split.labels, side, mode))
            for start, chunk in _chunks(split, mode, worker_count(jobs)):
                for sample, data in enumerate(chunk, start):
                    file.pad_to(int(layout.ptr[sample]))
                    file.write(data)
                    crc32[sample] = zlib.crc32(data)
                report(len(chunk))
            file.pad_to(layout.table_start)
            file.write(beton.table(layout))
        _read_back(partial, crc32, side, mode)
        _withdraw_card(split, path)
        records = Records(layout.ptr, layout.size, crc32)
        handover.write_records(records, handover.records_path(path))
        if statistics is not None:
            handover.write_statistics(statistics, handover.stats_path(path))
        else:  # those of an earlier beton of this name are of other data
            handover.stats_path(path).unlink(missing_ok=True)
    tools = {tool: version for tool, version in split.card.tools.items() if tool != RAW_TOOL}
    if mode == "raw":
        tools[RAW_TOOL] = images.FFCV_DECODER
    card = dataclasses.replace(split.card, mode=mode, sha256=file.digest.hexdigest(), tools=tools)
    handover.write_card(card, handover.card_path(path))
    return card, statistics is not None


def _check_name(split: PreparedSplit, path: Path) -> None:
    """Raises UserError when the companions would replace the files of another prepared split."""
    if path.suffix != ".beton":
        raise UserError(f"{path} should be called NAME.beton: its companions are named after it")
    namesake = path.with_suffix("")
    if prepared.manifest_path(namesake).exists() and namesake.resolve() != split.folder.resolve():
        raise UserError(
            f"{path} would put its card over that of the prepared split {namesake}; give another "
            "name or folder"
        )


def _withdraw_card(split: PreparedSplit, path: Path) -> None:
    """The old card goes before the rest changes, the new one comes last.

    So beside a card with a sha256 all is of one make. Beside the prepared split itself (OUT/train
    as OUT/train.beton) one card serves both, and only its sha256 goes.
    """
    card_path = handover.card_path(path)
    if path.with_suffix("").resolve() == split.folder.resolve():
        handover.write_card(dataclasses.replace(split.card, sha256=None), card_path)
    else:
        card_path.unlink(missing_ok=True)


def _statistics_of(split: PreparedSplit) -> Statistics | None:
    """The training split's statistics, to lie beside its beton; None for other splits."""
    path = prepared.split_stats_path(split.folder)
    if split.card.split != "train" or not path.exists():
        return None
    statistics = handover.read_statistics(path)
    if statistics.pixels_id != split.card.pixels_id:
        raise UserError(
            f"{path} is of other data (pixels_id {statistics.pixels_id[:12]}, the prepared set "
            f"has {split.card.pixels_id[:12]}); run `prep stats {split.folder}`"
        )
    return statistics


class _HashedFile:
    """Writes front to back and keeps the sha256 of what it wrote."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._position = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._out.write(data)
        self.digest.update(data)
        self._position += len(data)

    def pad_to(self, position: int) -> None:
        if position > self._position:
            self.write(bytes(position - self._position))


def _chunks(split: PreparedSplit, mode: str, threads: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (first sample, bytes of the samples from there) in order, read ahead by threads."""
    with ThreadPoolExecutor(threads) as pool:
        pending: collections.deque[tuple[int, Future[list[bytes]]]] = collections.deque()
        try:
            for start in range(0, len(split), CHUNK):
                stop = min(start + CHUNK, len(split))
                pending.append((start, pool.submit(_read_chunk, split, start, stop, mode)))
                if len(pending) > 2 * threads:
                    first, future = pending.popleft()
                    yield first, future.result()
            for first, future in pending:
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read_chunk(split: PreparedSplit, start: int, stop: int, mode: str) -> list[bytes]:
    places = split.places(start, stop)
    if mode == "jpg":
        return [prepared.read_unchanged(place) for place in places]
    return [read_sample(place, split.card.side).tobytes() for place in places]


def _read_back(path: Path, crc32: npt.NDArray[np.uint32], side: int, mode: str) -> None:
    """Check what lies on the disk: structure, every record's crc32, every JPEG's frame."""
    written = beton.open_beton(path)
    for sample, data in beton.records(written):
        if zlib.crc32(data) != crc32[sample]:
            raise UserError(
                f"{path}: sample {sample} reads back with another crc32; the disk or memory is "
                "faulty: check it, then write again"
            )
        if mode == "jpg" and images.jpeg_shape(data) != (side, side, 3):
            raise UserError(
                f"{path}: sample {sample} is no {side}x{side} colour JPEG; run `prep resize` again"
            )
