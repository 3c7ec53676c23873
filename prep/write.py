"""Stage three: a prepared split into `NAME.beton`, with card, records and statistics beside it.

The prepared JPEGs' bytes go into the file as they are. FFCV's own DatasetWriter cannot be made to
hold them: its RGBImageField takes pixels and encodes them a second time, and a field class that
takes bytes is written with type id 255, which stock FFCV code cannot open. Its allocator gives
pages to whichever worker comes first, so that two writes differ; it opens the final name at once
and writes the header last; it waits for ever when a worker dies. What is used of FFCV is its
format, dtypes and page rule (prep.beton), which its reader confirms in a test.

All sizes being known from the manifest, the layout is planned first and threads fill its pages,
each of which is read back and checked (prep.page); this thread takes the sha256 of the pages in
their order. What a killed run has written is kept (prep.journal).
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import math
import os
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prep import beton, companions, images, prepared
from prep.beton import Layout, Page
from prep.direct import aligned, open_direct
from prep.files import whole_file, write_at
from prep.handover import Card, Records, Statistics
from prep.journal import Journal
from prep.order import BY_CLASS, Order
from prep.page import Target, ensure_page
from prep.prepared import PreparedSplit
from prep.program import UserError
from prep.progress import progress
from prep.units import worker_count

RAW_TOOL = "raw pixels"  # in a card: what decoded them
MAX_THREADS = 8  # one thread takes the sha256, at 0.3 to 2 GB/s: more would wait for it
WAITING = 2  # threads beside a core's own: they wait for a disk that is written past the cache
AHEAD = 2  # pages that are done but not yet in the sha256


@dataclasses.dataclass(frozen=True)
class Written:
    """What write_beton has done."""

    card: Card
    has_statistics: bool  # those of the training split are beside the beton
    kept: int  # samples that a killed run had written


def write_beton(
    folder: Path,
    path: Path,
    mode: str,
    jobs: int | None,
    order: Order = BY_CLASS,
    decode: bool = False,
) -> Written:
    """Write the prepared split `folder` as `path`, and its card, records and statistics.

    mode "jpg": the prepared bytes as they are; "raw": the pixels that FFCV decodes them to.
    With `decode` every record is decoded when it is read back.
    Raises UserError when the prepared split is damaged or has changed, its statistics are of
    other data, or `path` cannot be written.
    """
    split = prepared.open_prepared(folder)
    companions.check_names(split, path)
    refuse_empty(split)
    if mode == "raw":
        _refuse_large(split.card.side)
    statistics = companions.statistics_of(split)
    return write_split(split, statistics, path, mode, jobs, order, decode)


def refuse_empty(split: PreparedSplit) -> None:
    if len(split) == 0:
        rejects = prepared.split_card_path(split.folder).with_name("rejects.jsonl")
        raise UserError(f"{split.folder} holds no samples; see {rejects}")


def _refuse_large(side: int) -> None:
    largest = math.isqrt(beton.PAGE_SIZE // 3)
    if side > largest:
        raise UserError(
            f"--mode raw: pictures of {side}x{side} have {side * side * 3} bytes, a page holds "
            f"{beton.PAGE_SIZE}; leave out --mode raw, or prepare with --size {largest} or less"
        )


def write_split(
    split: PreparedSplit,
    statistics: Statistics | None,
    path: Path,
    mode: str,
    jobs: int | None,
    order: Order = BY_CLASS,
    decode: bool = False,
) -> Written:
    """Write the samples of a prepared split, which has its statistics or, for train, should have.

    What a killed run has left of the same beton is kept (prep.journal). Arguments, results and
    errors are those of write_beton.
    """
    split = split.in_order(order.of(split.labels))
    side = split.card.side
    sizes = split.sizes if mode == "jpg" else np.full(len(split), side * side * 3)
    layout = beton.plan_layout(sizes.astype(np.uint64))
    with contextlib.ExitStack() as card_comes_last, whole_file(path, resume=True) as partial:
        file = os.open(partial, os.O_RDWR)
        try:
            target = Target(file, split, mode, decode)
            sha256, crc32, kept, journal = _write_file(target, partial, layout, path.name, jobs)
            os.fdatasync(file)
            records = Records(layout.ptr, layout.size, crc32)
            with companions.written_beside(path, records, statistics) as records_sha256:
                card = dataclasses.replace(
                    split.card,
                    mode=mode,
                    order=order.order,
                    seed=order.seed,
                    sha256=sha256,
                    records_sha256=records_sha256,
                    tools=_tools(split.card, mode),
                )
                card_comes_last.enter_context(companions.new_card(card, split, path))
                journal.cut_off()
                beton.open_beton(partial)
        finally:
            os.close(file)
    return Written(card, statistics is not None, kept)


def _tools(card: Card, mode: str) -> dict[str, str]:
    """The versions of what made a beton's samples."""
    tools = {tool: version for tool, version in card.tools.items() if tool != RAW_TOOL}
    return tools | {RAW_TOOL: images.FFCV_DECODER} if mode == "raw" else tools


# --------------------------------------------------------------------------- the file


def _write_file(
    target: Target, partial: Path, layout: Layout, name: str, jobs: int | None
) -> tuple[str, npt.NDArray[np.uint32], int, Journal]:
    """Write and check all of the file `partial`, which `target` has open through the page cache.

    Returns its sha256, crc32 [N], how many samples were there, and the journal behind its end.
    """
    split = target.split
    head = beton.head(layout, split.labels, split.card.side, target.mode)
    plan = _plan(head, split.digests, target.mode)
    journal = Journal(target.file, layout.file_size, len(split), plan)
    digest, crc32, kept = hashlib.sha256(head), np.empty(len(split), np.uint32), 0
    _write_checked(target.file, head, 0, "header or metadata")
    direct = open_direct(partial)
    try:
        with (
            # Closed before the file is, so that no thread writes into another of its number.
            contextlib.closing(
                _pages(dataclasses.replace(target, file=direct), layout, journal, jobs)
            ) as pages,
            progress(f"write {name}", len(split)) as report,
        ):
            for page, found, was_there, data in pages:
                digest.update(data.data)
                crc32[page.samples.start : page.samples.stop] = found
                kept += len(found) if was_there else 0
                report(len(found))
    finally:
        os.close(direct)
    table = beton.table(layout)
    _write_checked(target.file, table, layout.table_start, "table")
    digest.update(table)
    return digest.hexdigest(), crc32, kept, journal


def claim_all(partial: Path, split: PreparedSplit) -> None:
    """Note in the journal that all samples of a split are in a file, in class order, as JPEGs.

    write_split, which keeps what its own unfinished file has, will look whether they are.
    """
    layout = beton.plan_layout(split.sizes.astype(np.uint64))
    head = beton.head(layout, split.labels, split.card.side, "jpg")
    plan = _plan(head, split.digests, "jpg")
    file = os.open(partial, os.O_RDWR)
    try:
        Journal.begin(file, layout.file_size, plan)
        Journal(file, layout.file_size, len(split), plan).add(0, split.crc32)
    finally:
        os.close(file)


def _plan(head: bytes, digests: npt.NDArray[np.uint8], mode: str) -> bytes:
    """sha256 of all that decides the file's bytes: which samples, where, in what form."""
    plan = hashlib.sha256(head)  # labels, places, mode
    plan.update(np.ascontiguousarray(digests).data)
    if mode == "raw":
        plan.update(images.FFCV_DECODER.encode())
    return plan.digest()


def _pages(
    target: Target, layout: Layout, journal: Journal, jobs: int | None
) -> Generator[tuple[Page, npt.NDArray[np.uint32], bool, npt.NDArray[np.uint8]]]:
    """Yield every page in order once it is in the file: crc32s, whether it was there, bytes.

    The bytes are good until the next page is asked for.
    """
    threads = min(worker_count(jobs) + (WAITING if jobs is None else 0), MAX_THREADS)
    free = [aligned(beton.PAGE_SIZE) for _ in range(threads + AHEAD)]
    busy: collections.deque[
        tuple[Page, npt.NDArray[np.uint8], Future[tuple[npt.NDArray[np.uint32], bool]]]
    ] = collections.deque()
    todo = beton.pages(layout)
    pool = ThreadPoolExecutor(threads)
    try:
        while True:
            while free and (page := next(todo, None)) is not None:
                claimed = journal.claims[page.samples.start : page.samples.stop]
                out = free.pop()
                busy.append((page, out, pool.submit(ensure_page, target, page, claimed, out)))
            if not busy:
                return
            page, out, future = busy.popleft()
            crc32, kept = future.result()
            journal.add(page.first, crc32)
            yield page, crc32, kept, out
            free.append(out)
    finally:
        pool.shutdown(cancel_futures=True)


def _write_checked(file: int, data: bytes, offset: int, what: str) -> None:
    """Write what is not a page, and read it back."""
    write_at(file, memoryview(data), offset)
    if os.pread(file, len(data), offset) != data:
        raise UserError(
            f"the {what} reads back otherwise than it was written; the disk or memory is faulty: "
            "check it, then write again"
        )
