"""The end of stage one: from the journal of a split's units to the prepared split.

The units' rows are put in label, then name order, whatever order the source had; with layout "tar"
the pictures are sorted into a tar a class. Then the folder gets its name, the manifest and the
card follow; the card says that the split is whole.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from prep import handover, prepared
from prep.check import contradictions
from prep.claim import Claim
from prep.comparison import first_of
from prep.files import sync_folder
from prep.handover import UNLABELLED, Card, ClassEntry
from prep.images import Settings
from prep.manifest import Manifest
from prep.plan import Options, card_fields, plan, tool_versions
from prep.program import UserError
from prep.progress import progress
from prep.shards import Shard, write_shard
from prep.sources.listing import SPLITS, Source
from prep.unit_rows import UNIT, Journal, SortedRows
from prep.units import run_units


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """What became of one split."""

    split: str
    samples: int
    rejected: int
    already_done: bool  # the whole split, by an earlier run of the same command
    done_now: int  # pictures of this run; a killed one may have done others


def already_done(folder: Path, rejected: Sequence[prepared.Row]) -> SplitSummary:
    samples = handover.read_card(prepared.split_card_path(folder)).samples
    return SplitSummary(folder.name, samples, len(rejected), already_done=True, done_now=0)


# --------------------------------------------------------------------------- checks


def check_splits(
    source: Source, out: Path, journals: Mapping[str, Journal | None], options: Options
) -> dict[str, list[prepared.Row]]:
    """Write OUT/rejects.jsonl; returns the rejected rows of each split.

    journals: of the splits whose pictures are done; None: finished by an earlier run.
    Raises UserError when a split's archives held other numbers of pictures than expected, or more
    are rejected than allowed.
    """
    rejected = {
        split: journal.rejected() if journal else list(prepared.rejected_rows(out / split))
        for split, journal in journals.items()
    }
    others = {
        split: list(prepared.rejected_rows(out / split))
        for split in SPLITS
        if split not in journals and prepared.manifest_path(out / split).exists()
    }
    prepared.write_rejects(others | rejected, out / "rejects.jsonl")
    for split, journal in journals.items():
        if journal:
            _check_counts(source, split, journal, options.expected)
        total = journal.total() if journal else prepared.originals(out / split)
        _check_rejects(out / split, total, rejected[split], options.max_rejects)
    return rejected


def _check_counts(source: Source, split: str, journal: Journal, expected: Manifest | None) -> None:
    """What archives held is known only now."""
    if expected is None or not source.splits[split].of_archives:
        return
    counts = {split: journal.counts(len(source.classes))}
    found = contradictions(source, expected, [split], counts)
    if found:
        raise UserError(
            f"{source.root} contradicts {expected.title}: {first_of(found)}; get the archive "
            "again, or run the same command with --partial"
        )


def _check_rejects(
    folder: Path, total: int, rejected: list[prepared.Row], max_rejects: float
) -> None:
    if len(rejected) > max_rejects * total:
        first = rejected[0]
        raise UserError(
            f"{len(rejected)} of {total} pictures of {folder.name} were rejected, more than "
            f"--max-rejects {max_rejects:g} allows; the first is {first['source']}: "
            f"{first['reason']}; all are in {folder.parent / 'rejects.jsonl'}: run the same "
            "command with a larger --max-rejects, or mend them and give another folder than "
            f"{folder.parent}"
        )


# --------------------------------------------------------------------------- finishing


def finish(
    source: Source,
    folder: Path,
    journal: Journal,
    options: Options,
    claim: Claim,
) -> SplitSummary:
    """Name the folder, write manifest and card."""
    split = folder.name
    rows = journal.sorted_rows()
    partial = prepared.partial_folder(folder)
    taken = pc.equal(rows.column("status"), "ok").to_numpy(zero_copy_only=False)
    labels = rows.column("label").to_numpy()
    offsets = np.zeros(len(rows), np.int64)
    if options.layout == "tar":
        chosen, place = np.flatnonzero(taken), folder if folder.exists() else partial
        shards = _shards(rows, chosen, labels, place, journal.folder, claim)
        with progress(f"tars of {split}", len(chosen)) as report:
            for label, found in run_units(write_shard, shards, options.jobs):
                offsets[chosen[labels[chosen] == label]] = found
                report(len(found))
    if not folder.exists():
        partial.replace(folder)
        sync_folder(folder.parent)
    digests = prepared.digests(rows.column("sha256").filter(pa.array(taken)))
    card = card_of(source, split, options.settings, labels[taken].astype(np.int64), digests)
    asked = plan(source, split, options)
    manifest = manifest_rows(rows, offsets, options.layout)
    prepared.write_manifest(manifest, asked, prepared.manifest_path(folder))
    handover.write_card(card, prepared.split_card_path(folder))
    rejected = len(rows) - card.samples
    return SplitSummary(
        split, card.samples, rejected, already_done=False, done_now=journal.done_now
    )


def card_of(
    source: Source,
    split: str,
    settings: Settings,
    labels: npt.NDArray[np.int64],
    digests: npt.NDArray[np.uint8],
) -> Card:
    """The card of a prepared split with samples of these labels [N] and sha256s [N,32]."""
    counts = np.bincount(labels[labels != UNLABELLED], minlength=len(source.classes))
    return Card(
        split=split,
        samples=len(labels),
        classes=tuple(
            ClassEntry(wnid, class_name, int(count))
            for wnid, class_name, count in zip(source.classes, source.names, counts, strict=True)
        ),
        mode="jpg",
        sha256=None,
        pixels_id=handover.pixels_id(labels, digests),
        tools=tool_versions(settings.backend),
        **card_fields(source, split, settings),
    )


def manifest_rows(
    rows: SortedRows, offsets: npt.NDArray[np.int64], layout: str
) -> Iterator[pa.Table]:
    """The manifest's rows, some at a time; of layout "tar" with each sample's place."""
    for start in range(0, max(len(rows), 1), prepared.ROW_GROUP):
        places = np.arange(start, min(start + prepared.ROW_GROUP, len(rows)))
        part = rows.take(places).select(prepared.SCHEMA.names).cast(prepared.SCHEMA)
        if layout == "tar":
            names = pc.binary_join_element_wise(part["class"], "tar", ".")
            shards = pc.if_else(pc.equal(part["status"], "ok"), names, None).cast(pa.string())
            columns = {"shard": shards, "offset": pa.array(offsets[places])}
            for name, column in columns.items():
                part = part.set_column(part.schema.get_field_index(name), name, column)
        yield part


def _shards(
    rows: SortedRows,
    taken: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int32],
    folder: Path,
    work: Path,
    claim: Claim,
) -> Iterator[Shard]:
    """The tar of each class, of the rows `taken`."""
    starts = np.flatnonzero(np.diff(labels[taken], prepend=UNLABELLED - 1))
    for start, stop in itertools.pairwise([*starts.tolist(), len(taken)]):
        part = rows.take(taken[start:stop])
        yield Shard(
            path=folder / f"{part['class'][0].as_py()}.tar",
            label=part["label"][0].as_py(),
            names=part["name"].to_pylist(),
            parts=part[UNIT].to_pylist(),
            offsets=part["offset"].to_pylist(),
            sizes=part["bytes"].to_pylist(),
            work=work,
            claim=claim,
        )
