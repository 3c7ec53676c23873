"""Stage one: pictures to SxS JPEGs, `OUT/<split>/<class>/<name>` or `OUT/<split>/<class>.tar`.

The work is cut into units: runs of consecutive pictures, or whole archives of one class. A worker
stores a unit's JPEGs, makes them durable, and only then writes the unit's rows into
`OUT/.prep/<split>/`: that file's presence is the journal. A killed run therefore carries on with
the units that have no rows. When all have, the split is finished (prep.finish).

The units may also be divided among several runs, the parts, on one machine or many: each does every
n-th unit, and the whole run that follows does what they have left, then finishes.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np

from prep import prepared
from prep.claim import Claim, work_folder
from prep.cluster import connected
from prep.files import write_first
from prep.finish import SplitSummary, already_done, check_splits, finish
from prep.names import class_folders, folder_of
from prep.pictures import pictures_of_runs, runs
from prep.plan import Options, plan, refuse_other_plan
from prep.program import UserError
from prep.progress import progress
from prep.resize_unit import Unit, resize_unit
from prep.sources.listing import Source
from prep.unit_rows import Journal
from prep.units import run_units


def resize(source: Source, out: Path, options: Options) -> list[SplitSummary]:
    """Prepare every split of `source` under `out`; returns one summary a split.

    Raises UserError when `out` holds something else, cannot be written, when the pictures in a
    split's archives are not as many as expected, or when more of a split's are rejected than
    allowed.
    """
    if options.dask is not None:
        connected(options.dask).close()  # before anything is written
    with work_folder(source.root, out) as (work, claim):
        journals = {
            split: _prepare_split(source, out / split, work, claim, options)
            for split in source.splits
        }
        with claim.held():  # where locks are not seen by all, a later run may have begun
            rejected = check_splits(source, out, journals, options)
            summaries = [
                finish(source, out / split, journal, options, claim)
                if journal
                else already_done(out / split, rejected[split])
                for split, journal in journals.items()
            ]
            for split in journals:
                shutil.rmtree(work / split, ignore_errors=True)
    return summaries


@dataclasses.dataclass(frozen=True)
class PartSummary:
    """What became of one split in a part of a run."""

    split: str
    done_now: int  # pictures
    units: int  # of the whole split
    missing: int  # of these, by whatever part


def resize_part(source: Source, out: Path, options: Options) -> list[PartSummary]:
    """Do the units of `options.part` of every split; a whole run finishes. Raises as resize."""
    summaries = []
    with work_folder(source.root, out, part=True) as (work, claim):
        for split in source.splits:
            journal = _prepare_split(source, out / split, work, claim, options)
            if journal is None:
                summaries.append(PartSummary(split, 0, 0, 0))
            else:
                missing = sum(not journal.file(number).exists() for number in range(journal.units))
                summaries.append(PartSummary(split, journal.done_now, journal.units, missing))
    return summaries


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
    begun = prepared.partial_folder(folder).exists()
    planned = plan_file.exists()
    if not planned and folder.exists():
        raise UserError(f"{folder} exists and was not made by this command; give another folder")
    if not planned and begun:  # seen before the look at the plan, which another part writes first
        raise UserError(
            f"{prepared.partial_folder(folder)} was left by a run of which nothing else is known; "
            "remove it, or give another OUT"
        )
    if not planned:
        rows_folder.mkdir(exist_ok=True)
        write_first(plan_file, json.dumps(wanted))
    # Another part may have been first.
    refuse_other_plan(json.loads(plan_file.read_text()), wanted, rows_folder, finished=False)
    if planned and options.part is None:
        for left in rows_folder.glob("*.partial"):  # of workers that were killed
            left.unlink()
    if planned and options.layout == "tree":
        _forget_lost_pictures(folder, rows_folder)

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
    old = list(rows_folder.glob("*.parquet"))  # first: another part may begin to write
    if not folder.exists() and not prepared.partial_folder(folder).exists():
        for rows in old:
            rows.unlink(missing_ok=True)


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
    if options.part is not None:
        number, parts = options.part
        chosen = np.zeros_like(missing)
        chosen[number - 1 :: parts] = True
        missing &= chosen
    pictures = pictures_of_runs(source, folder.name, options.expected)
    total = None if pictures is None else int(pictures[missing].sum())
    units = (
        Unit(run, options.layout, images_folder.absolute(), journal.folder.absolute(), claim)
        for run in runs(source, folder.name, options.settings, options.layout == "tar")
        if missing[run.number]
    )
    with progress(f"resize {folder.name}", total) as report:
        done_now = 0
        files = [source.first_file(folder.name), claim.file]
        for done, rejected in run_units(resize_unit, units, options.jobs, options.dask, files):
            done_now += done
            report(done, rejected)
    return done_now
