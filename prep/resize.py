"""Stage one: pictures to SxS JPEGs, `OUT/<split>/<class>/<name>` or `OUT/<split>/<class>.tar`.

The work is cut into units: runs of consecutive pictures, or whole archives of one class. A worker
stores a unit's JPEGs, makes them durable, and only then writes the unit's rows into
`OUT/.prep/<split>/`: that file's presence is the journal. A killed run therefore carries on with
the units that have no rows. When all have, the split is finished (prep.finish).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prep import prepared
from prep.check import contradictions
from prep.claim import LOCKS, Claim, claimed, give_back
from prep.cluster import connected
from prep.comparison import first_of
from prep.files import whole_file
from prep.finish import Journal, SplitSummary, already_done, finish
from prep.manifest import Manifest
from prep.names import FileNames, class_folders, folder_of
from prep.plan import Options, plan, refuse_other_plan
from prep.program import UserError
from prep.progress import progress
from prep.resize_unit import Unit, resize_unit
from prep.sources.listing import SPLITS, Source
from prep.units import run_units


def resize(source: Source, out: Path, options: Options) -> list[SplitSummary]:
    """Prepare every split of `source` under `out`; returns one summary a split.

    Raises UserError when `out` holds something else, cannot be written, when the pictures in a
    split's archives are not as many as expected, or when more of a split's are rejected than
    allowed.
    """
    if out.resolve().is_relative_to(source.root.resolve()):
        raise UserError(
            f"{out} lies in the source {source.root}, where it would be taken for pictures of it; "
            "give a folder elsewhere"
        )
    if options.dask is not None:
        connected(options.dask).close()  # before anything is written
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {out}: {error.strerror}; give another folder") from error
    with _work_folder(out) as (work, claim):
        journals = {
            split: _prepare_split(source, out / split, work, claim, options)
            for split in source.splits
        }
        rejected = {
            split: list(journal.rejected() if journal else prepared.rejected_rows(out / split))
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
        summaries = [
            finish(source, out / split, journal, options, claim)
            if journal
            else already_done(out / split, len(rejected[split]))
            for split, journal in journals.items()
        ]
        for split in journals:
            shutil.rmtree(work / split, ignore_errors=True)
    return summaries


@contextlib.contextmanager
def _work_folder(out: Path) -> Iterator[tuple[Path, Claim]]:
    """OUT/.prep, which no other run writes."""
    work = out / ".prep"
    work.mkdir(exist_ok=True)
    with claimed(work, out) as claim:
        try:
            yield work, claim
        finally:
            _clear_if_unused(work)


def _clear_if_unused(work: Path) -> None:
    """Nothing is left of a run that has ended well, or was refused before it began."""
    if {path.name for path in work.iterdir()} <= set(LOCKS):
        give_back(work)


# --------------------------------------------------------------------------- one split


def _prepare_split(
    source: Source, folder: Path, work: Path, claim: Claim, options: Options
) -> Journal | None:
    """Do the units that are not done yet; None when an earlier run finished the split."""
    split = folder.name
    wanted = plan(source, split, options)
    if prepared.split_card_path(folder).exists():
        _refuse_remains(folder)
        refuse_other_plan(prepared.plan_of(folder), wanted, folder, finished=True)
        return None

    rows_folder = work / split
    plan_file = rows_folder / "plan.json"
    if plan_file.exists():
        refuse_other_plan(json.loads(plan_file.read_text()), wanted, folder, finished=False)
        if options.layout == "tree" and not prepared.partial_folder(folder).exists():
            _forget_lost_pictures(folder, rows_folder)
    elif folder.exists():
        raise UserError(f"{folder} exists and was not made by this command; give another folder")
    elif prepared.partial_folder(folder).exists():
        raise UserError(
            f"{prepared.partial_folder(folder)} was left by a run of which nothing else is known; "
            "remove it, or give another OUT"
        )
    else:
        rows_folder.mkdir(exist_ok=True)
        with whole_file(plan_file) as partial:
            partial.write_text(json.dumps(wanted))

    journal = Journal(rows_folder, len(source.splits[split].unit_bounds()) - 1)
    if not folder.exists():
        done = _run(source, folder, journal, claim, options)
        return dataclasses.replace(journal, done_now=done)
    lost = next(filter(lambda n: not journal.file(n).exists(), range(journal.units)), None)
    if lost is not None:  # a run is killed after naming the folder when all rows are there
        raise UserError(
            f"{folder} is there, but {journal.file(lost)}, which tells of its pictures, is not; "
            f"remove {folder} and {rows_folder}, then run the same command again"
        )
    return journal


def _forget_lost_pictures(folder: Path, rows_folder: Path) -> None:
    """The journal is of no use when somebody has removed the pictures."""
    if not folder.exists():
        for rows in rows_folder.glob("*.parquet"):
            rows.unlink()


def _refuse_remains(folder: Path) -> None:
    """A card says that the split is whole: its folder and manifest have to be there."""
    for path in (folder, prepared.manifest_path(folder)):
        if not path.exists():
            raise UserError(
                f"{prepared.split_card_path(folder)} is there, but {path} is not; remove the card "
                "and what else is left of this split, then run again"
            )


def _run(source: Source, folder: Path, journal: Journal, claim: Claim, options: Options) -> int:
    """Do the missing units; returns how many pictures they had."""
    split = source.splits[folder.name]
    images_folder = prepared.partial_folder(folder)
    images_folder.mkdir(exist_ok=True)
    if options.layout == "tree":
        folders = class_folders(source.classes)
        for label in np.unique(split.listing.labels).tolist():
            (images_folder / folder_of(label, folders)).mkdir(exist_ok=True)
    missing = np.array([not journal.file(number).exists() for number in range(journal.units)])
    pictures = _pictures_of_units(source, folder.name, options.expected)
    total = None if pictures is None else int(pictures[missing].sum())
    every = _units(source, folder.name, images_folder, journal.folder, claim, options)
    units = (unit for unit in every if missing[unit.number])
    with progress(f"resize {folder.name}", total) as report:
        done_now = 0
        for done, rejected in run_units(resize_unit, units, options.jobs, options.dask):
            done_now += done
            report(done, rejected)
    return done_now


def _pictures_of_units(
    source: Source, name: str, expected: Manifest | None
) -> npt.NDArray[np.int64] | None:
    """How many pictures each unit has; None when that shows only as archives are read."""
    split = source.splits[name]
    if not split.of_archives:
        return np.diff(split.unit_bounds())
    images = {c.folder: c.images.get(name) for c in expected.classes} if expected else {}
    known = [images.get(source.classes[label]) for label in split.listing.labels.tolist()]
    return None if None in known else np.array(known)


def _units(
    source: Source, name: str, images_folder: Path, work: Path, claim: Claim, options: Options
) -> Iterator[Unit]:
    """The units of a split in order, made as they are needed."""
    split, folders = source.splits[name], class_folders(source.classes)
    given = FileNames(folders, whole_stem=options.layout == "tar")
    bounds = split.unit_bounds().tolist()
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        entries = split.listing.part(start, stop)
        names = None
        if not split.of_archives:
            pairs = zip(entries.labels.tolist(), entries.names, strict=True)
            names = tuple(given.add(label, entry) for label, entry in pairs)
        yield Unit(
            number=number,
            root=source.root.absolute(),  # a worker may be elsewhere
            entries=entries,
            read=split.read,
            names=names,
            folders=folders,
            layout=options.layout,
            images_folder=images_folder.absolute(),
            work=work.absolute(),
            claim=claim,
            settings=options.settings,
        )


# --------------------------------------------------------------------------- checks


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
            "command with a larger --max-rejects, or mend them and give another OUT"
        )
