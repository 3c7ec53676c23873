"""One split of `prep build`, from its source to a stream of samples; what is done is kept.

Workers give a unit's JPEGs, rows and sums (prep.build_unit); this process, in the order of samples,
appends the JPEGs to a stream (prep.stream). Now and then it makes durable what is there, writes the
rows of the units in it, and last the checkpoint that names those units: a killed run carries on
with the others.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prep.build_unit import Unit, build_unit
from prep.moments import zero_moments
from prep.pictures import pictures_of_runs, runs_of_samples
from prep.plan import Options
from prep.progress import progress
from prep.sources.listing import Source
from prep.stats_resume import Checkpoint, SoFar
from prep.stream import LostSamplesError, SampleStream
from prep.unit_rows import Journal
from prep.units import OrderedWorkers

STREAM = "beton"  # the file of a split's samples
COST = 0.1  # share of this process's time for making things durable; the workers go on
MEAN_BYTES = 110_000  # of an ImageNet original, to guess from where only an archive's size is known


@dataclasses.dataclass(frozen=True)
class Streamed:
    """A split whose samples are all in `stream`, and the sums over them, of train."""

    journal: Journal
    so_far: SoFar
    stream: SampleStream


def stream_split(
    source: Source, split: str, work: Path, plan: str, options: Options, workers: OrderedWorkers
) -> Streamed:
    """Have all samples of a split in the stream `work`/beton, which is to be closed.

    plan: names all that decides the samples. Raises UserError when a picture's JPEG is too large,
    or a worker dies.
    """
    journal = Journal(work, len(source.splits[split].unit_bounds()) - 1)
    checkpoint = Checkpoint(work / "sums", plan, COST)
    so_far = checkpoint.load(options.settings.side, journal.units)
    path, guess = work / STREAM, samples_guess(source, split, options)
    try:
        stream = SampleStream(path, guess, _sizes(journal, so_far))
    except (OSError, pa.ArrowException, LostSamplesError):  # it could only have saved time
        so_far = SoFar(zero_moments(options.settings.side), np.zeros(journal.units, np.bool_))
        stream = SampleStream(path, guess, [])
    units = (
        Unit(run, measured=split == "train")
        for run in runs_of_samples(source, split, options.settings)
        if not so_far.done[run.number]
    )
    known = pictures_of_runs(source, split, options.expected)
    total = None if known is None else int(known[~so_far.done].sum())
    done_now = 0
    waiting: list[pa.Table] = []  # the rows of units that are in the stream, but not yet noted
    try:
        with progress(f"build {split}", total) as report:
            for built in workers.run(build_unit, units):
                sizes = _taken_sizes(built.rows)
                stream.append(built.jpegs, sizes)
                so_far.add(built.number, built.moments)
                waiting.append(built.rows)
                done_now += len(built.rows)
                report(len(built.rows), len(built.rows) - len(sizes))
                if checkpoint.due() or so_far.done.all():
                    _note(journal, checkpoint, so_far, stream, waiting)
                    waiting.clear()
    except BaseException:
        stream.close()
        raise
    return Streamed(dataclasses.replace(journal, done_now=done_now), so_far, stream)


def _note(
    journal: Journal,
    checkpoint: Checkpoint,
    so_far: SoFar,
    stream: SampleStream,
    waiting: list[pa.Table],
) -> None:
    """Make durable what is done, the rows of its last units too, then say so."""
    began = time.monotonic()
    stream.make_durable()
    first = int(so_far.done.sum()) - len(waiting)
    for number, rows in enumerate(waiting, first):
        journal.write(number, rows)
    checkpoint.save(so_far, began)


def _sizes(journal: Journal, so_far: SoFar) -> list[int]:
    """Bytes of the samples of the units that are done, which are the first ones."""
    sizes: list[int] = []
    for number in range(int(so_far.done.sum())):
        sizes += _taken_sizes(pq.read_table(journal.file(number), columns=["bytes", "status"]))
    return sizes


def _taken_sizes(rows: pa.Table) -> list[int]:
    sizes: list[int] = rows["bytes"].filter(pc.equal(rows["status"], "ok")).to_pylist()
    return sizes


def samples_guess(source: Source, split: str, options: Options) -> int:
    """How many samples the split will have, if none is rejected; a guess for unknown archives."""
    known = pictures_of_runs(source, split, options.expected)
    if known is not None:
        return int(known.sum())
    return int(source.splits[split].listing.places["size"].sum()) // MEAN_BYTES
