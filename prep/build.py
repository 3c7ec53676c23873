"""All stages in one pass: a source to `DEST/<split>.beton` with card, records and statistics.

No picture is stored on the way. When all samples of a split are in a stream, `DEST/.prep/<split>/
beton` (prep.build_split), that file is one which prep.write would have been killed over at the very
end, and that module finishes it: every sample is read back and checked, and beton, records,
statistics and card are those that `prep resize`, `prep stats` and `prep write-beton` make of the
same source. `DEST/<split>.parquet` tells what each sample was made of, as the manifest of a
prepared split does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep import handover, prepared
from prep.beton import plan_layout
from prep.build_split import STREAM, Streamed, stream_split
from prep.claim import work_folder
from prep.files import naming, whole_file, without_partial
from prep.finish import SplitSummary, already_done, card_of, check_splits, manifest_rows
from prep.place import LostSampleError
from prep.plan import BETON, Options, plan, refuse_other_plan
from prep.prepared import PreparedSplit
from prep.program import UserError
from prep.sources.listing import Source
from prep.stats import statistics_of
from prep.units import OrderedWorkers
from prep.write import claim_all, refuse_empty, write_split


def build(source: Source, dest: Path, options: Options) -> list[SplitSummary]:
    """Build the beton of every split of `source` in `dest`; returns one summary a split.

    Raises UserError when `dest` holds something else or cannot be written, when the source cannot
    be read class by class, when the pictures in a split's archives are not as many as expected, or
    when more of a split's are rejected than allowed.
    """
    if any(split.in_order for split in source.splits.values()):
        raise UserError(
            f"{source.root} ({source.kind}) can be read from start to end only, and a beton has "
            "its samples class by class; use prep resize, prep stats and prep write-beton"
        )
    with (
        work_folder(source.root, dest) as (work, _),
        contextlib.closing(OrderedWorkers(options.jobs)) as workers,
        contextlib.ExitStack() as open_streams,
    ):
        done: dict[str, Streamed | None] = {}
        plans = {split: plan(source, split, options) | {"layout": BETON} for split in source.splits}
        for split, wanted in plans.items():
            if _begin(dest / split, work / split, wanted):
                named = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
                found = stream_split(source, split, work / split, named, options, workers)
                open_streams.callback(found.stream.close)
                done[split] = found
            else:
                done[split] = None
        journals = {split: found.journal if found else None for split, found in done.items()}
        rejected = check_splits(source, dest, journals, options)
        summaries = []
        for split, streamed in done.items():
            if streamed:
                summaries.append(_finish(source, dest / split, streamed, plans[split], options))
                # At once: its stream is the beton, which nothing may change from now on.
                streamed.stream.close()  # on NFS a file that is open keeps its folder
                shutil.rmtree(work / split, ignore_errors=True)
            else:
                summaries.append(already_done(dest / split, rejected[split]))
    return summaries


def _begin(name: Path, work: Path, wanted: dict[str, Any]) -> bool:
    """Whether the files that are called `name`, DEST/<split>, are still to be made.

    Raises UserError when there are some that were made otherwise, or finished ones lack statistics.
    """
    plan_file = work / "plan.json"
    beton = name.with_name(name.name + ".beton")
    card, statistics = handover.card_path(beton), handover.stats_path(beton)
    files = [beton, card, handover.records_path(beton), prepared.manifest_path(name)]
    there = [
        path
        for path in (*files, name, *([statistics] if name.name == "train" else []))
        if path.exists() or path.is_symlink()
    ]
    if there in (files, [*files, statistics]) and (made := handover.read_card(card)).sha256:
        refuse_other_plan(prepared.plan_of(name), wanted, beton, finished=True)
        if name.name == "train":
            handover.read_statistics_of(made, statistics)
        shutil.rmtree(work, ignore_errors=True)
        return False
    if plan_file.exists():
        refuse_other_plan(json.loads(plan_file.read_text()), wanted, work, finished=False)
        stream = work / STREAM
        if beton.exists() and stream.exists() and beton.samefile(stream):
            beton.unlink()  # a run was killed before its card; the stream has it all
        return True
    if there:
        gone = [path for path in files if path not in there]
        raise UserError(
            f"{there[0]} is there and was not made by this command"
            f"{f', or {gone[0]} is gone' if gone else ''}; give another folder than {name.parent}, "
            f"or remove what is called {name.name} in it"
        )
    work.mkdir(exist_ok=True)
    with whole_file(plan_file) as partial:
        partial.write_text(json.dumps(wanted))
    return True


def _finish(
    source: Source, name: Path, done: Streamed, wanted: dict[str, Any], options: Options
) -> SplitSummary:
    """Make the stream of a split its beton, and write what lies beside it."""
    split = name.name
    samples, rejected = _samples(source, name, done, wanted, options)
    pa.default_memory_pool().release_unused()  # the rows of ImageNet: some 300 MB
    refuse_empty(samples)
    statistics = None
    if split == "train":
        statistics = statistics_of(done.so_far.total, samples.card.pixels_id)
    beton = name.with_name(name.name + ".beton")
    partial = without_partial(beton)
    with naming(beton):
        done.stream.link(partial, plan_layout(samples.sizes.astype(np.uint64)).data_start)
        claim_all(partial, samples)
    try:
        write_split(samples, statistics, beton, "jpg", options.jobs)
    except LostSampleError as error:  # there are no files to take it from again
        raise UserError(
            f"{done.journal.folder / STREAM} has changed since it was written; the disk or memory "
            f"is faulty: check it, then remove {done.journal.folder} and what is called {split} in "
            f"{name.parent}, and run the same command again"
        ) from error
    return SplitSummary(
        split,
        len(samples),
        rejected,
        already_done=False,
        done_now=done.journal.done_now,
    )


def _samples(
    source: Source, name: Path, done: Streamed, wanted: dict[str, Any], options: Options
) -> tuple[PreparedSplit, int]:
    """The samples of a split, whose manifest is written, and how many pictures were rejected."""
    rows = done.journal.sorted_rows()
    taken = pc.equal(rows.column("status"), "ok")
    labels = rows.column("label").filter(taken).to_numpy().astype(np.int64)
    digests = prepared.digests(rows.column("sha256").filter(taken)).copy()
    manifest = manifest_rows(rows, np.zeros(len(rows), np.int64), "tree")
    prepared.write_manifest(manifest, wanted, prepared.manifest_path(name))
    split = PreparedSplit(
        folder=name,
        card=card_of(source, name.name, options.settings, labels, digests),
        names=rows.column("name").filter(taken),
        shards=pa.nulls(len(labels), pa.string()),
        offsets=np.zeros(len(labels), np.int64),
        labels=labels,
        sizes=rows.column("bytes").filter(taken).to_numpy().copy(),
        crc32=rows.column("crc32").filter(taken).to_numpy().copy(),
        digests=digests,
    )
    return split, len(rows) - len(labels)
