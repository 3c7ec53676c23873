"""Stage one: pictures to SxS JPEGs, `OUT/<split>/<class>/<name>`.

The work is cut into units of consecutive pictures. A worker writes a unit's JPEGs into
`OUT/<split>.partial/`, makes them durable, and only then writes the unit's rows into
`OUT/.prep/<split>/`: that file's presence is the journal. A killed run therefore carries on with
the units that have no rows. When all have, the folder gets its name, then manifest and card
follow; the card says that the split is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from prep import __version__, handover, prepared
from prep.files import only_run, sync_folder, whole_file
from prep.handover import Card, ClassEntry
from prep.images import Settings
from prep.program import UserError
from prep.progress import progress
from prep.resize_unit import Unit, read_rows, resize_unit
from prep.sources import Original, Source
from prep.units import run_units

UNIT_SIZE = 256  # pictures: one or two seconds of one core
STEM_BYTES = 240  # of a prepared file's name; a whole name may have 255 bytes


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """What became of one split."""

    split: str
    samples: int
    rejected: int
    already_done: bool  # by an earlier run of the same command


@dataclasses.dataclass(frozen=True)
class _Split:
    """A split whose pictures are all done; `units` is empty when an earlier run finished it."""

    folder: Path
    units: list[Unit]


def resize(
    source: Source, out: Path, settings: Settings, jobs: int | None, max_rejects: float
) -> list[SplitSummary]:
    """Prepare every split of `source` under `out`; returns one summary a split.

    Raises UserError when `out` holds something else, cannot be written, or when more than
    `max_rejects` (a fraction) of a split's pictures are rejected.
    """
    if out.resolve().is_relative_to(source.root.resolve()):
        raise UserError(
            f"{out} lies in the source {source.root}, where it would be taken for pictures of it; "
            "give a folder elsewhere"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {out}: {error.strerror}; give another folder") from error
    with _work_folder(out) as work:
        splits = [
            _prepare_split(source, split, out, work, settings, jobs) for split in source.splits
        ]
        rejected = ((split.folder.name, row) for split in splits for row in _rejected(split))
        prepared.write_rejects(rejected, out / "rejects.jsonl")
        for split in splits:
            _check_rejects(split, len(source.splits[split.folder.name]), max_rejects)
        summaries = [_finish(source, split, settings) for split in splits]
        shutil.rmtree(work)
    return summaries


@contextlib.contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """OUT/.prep, locked against a second run into OUT."""
    work = out / ".prep"
    work.mkdir(exist_ok=True)
    with only_run(work / "lock", out):
        try:
            yield work
        finally:
            _clear_if_unused(work)


def _clear_if_unused(work: Path) -> None:
    """A run that was refused before it began leaves nothing."""
    if work.exists() and [path.name for path in work.iterdir()] == ["lock"]:
        shutil.rmtree(work, ignore_errors=True)


# --------------------------------------------------------------------------- one split


def _prepare_split(
    source: Source, split: str, out: Path, work: Path, settings: Settings, jobs: int | None
) -> _Split:
    """Do the units that are not done yet."""
    folder = out / split
    plan = _plan(source, split, settings)
    if prepared.split_card_path(folder).exists():
        _refuse_remains(folder)
        card = handover.read_card(prepared.split_card_path(folder))
        _refuse_other_plan(plan | _plan_of_card(card), plan, folder)
        return _Split(folder, [])

    rows_folder = work / split
    plan_file = rows_folder / "plan.json"
    if plan_file.exists():
        _refuse_other_plan(json.loads(plan_file.read_text()), plan, folder)
    elif folder.exists():
        raise UserError(f"{folder} exists and was not made by this command; give another folder")
    else:
        rows_folder.mkdir(exist_ok=True)
        with whole_file(plan_file) as partial:
            partial.write_text(json.dumps(plan))

    units = _units(source, split, folder, rows_folder, settings)
    if not folder.exists():  # else a run was killed after naming the folder
        _run(units, split, jobs)
    return _Split(folder, units)


def _refuse_remains(folder: Path) -> None:
    """A card says that the split is whole: its folder and manifest have to be there."""
    for path in (folder, prepared.manifest_path(folder)):
        if not path.exists():
            raise UserError(
                f"{prepared.split_card_path(folder)} is there, but {path} is not; remove the card "
                "and what else is left of this split, then run again"
            )


def _run(units: list[Unit], split: str, jobs: int | None) -> None:
    images_folder = units[0].images_folder
    images_folder.mkdir(exist_ok=True)
    for class_folder in {PurePosixPath(name).parent for unit in units for name in unit.names}:
        (images_folder / class_folder).mkdir(exist_ok=True)
    missing = [unit for unit in units if not unit.rows_file.exists()]
    with progress(f"resize {split}", sum(len(unit.originals) for unit in missing)) as report:
        for done, rejected in run_units(resize_unit, missing, jobs):
            report(done, rejected)


def _rows(split: _Split) -> Iterator[prepared.Row]:
    return (row for unit in split.units for row in read_rows(unit.rows_file))


def _rejected(split: _Split) -> Iterator[prepared.Row]:
    if not split.units:
        return prepared.rejected_rows(split.folder)
    return (row for row in _rows(split) if row["status"] == "rejected")


def _check_rejects(split: _Split, total: int, max_rejects: float) -> None:
    rejected = list(_rejected(split))
    if split.units and len(rejected) > max_rejects * total:
        first = rejected[0]
        raise UserError(
            f"{len(rejected)} of {total} pictures of {split.folder.name} were rejected, more than "
            f"--max-rejects {max_rejects:g} allows; the first is {first['source']}: "
            f"{first['reason']}; all are in {split.folder.parent / 'rejects.jsonl'}: run the same "
            "command with a larger --max-rejects, or mend them and give another OUT"
        )


def _finish(source: Source, split: _Split, settings: Settings) -> SplitSummary:
    """Name the folder, write manifest and card."""
    folder, name = split.folder, split.folder.name
    total = len(source.splits[name])
    if not split.units:
        samples = handover.read_card(prepared.split_card_path(folder)).samples
        return SplitSummary(name, samples, total - samples, already_done=True)
    labels, digests = [], []
    for row in _rows(split):
        if row["status"] == "ok":
            labels.append(row["label"])
            digests.append(row["sha256"])
    label_array = np.array(labels, np.int64)
    counts = np.bincount(label_array, minlength=len(source.classes))
    card = Card(
        split=name,
        samples=len(labels),
        classes=tuple(
            ClassEntry(wnid, class_name, int(count))
            for wnid, class_name, count in zip(source.classes, source.names, counts, strict=True)
        ),
        mode="jpg",
        sha256=None,
        pixels_id=handover.pixels_id(
            label_array, np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
        ),
        tools=tool_versions(settings.backend),
        **_plan_fields(source, name, settings),
    )
    if not folder.exists():
        split.units[0].images_folder.replace(folder)
        sync_folder(folder.parent)
    manifest = (read_rows(unit.rows_file) for unit in split.units)
    prepared.write_manifest(manifest, prepared.manifest_path(folder))
    handover.write_card(card, prepared.split_card_path(folder))
    return SplitSummary(name, len(labels), total - len(labels), already_done=False)


# --------------------------------------------------------------------------- the plan


def _plan_fields(source: Source, split: str, settings: Settings) -> dict[str, Any]:
    return {
        "side": settings.side,
        "quality": settings.quality,
        "backend": settings.backend,
        "filter": settings.filter,
        "fit": settings.fit,
        "exif": settings.exif,
        "source": source.fingerprint(split),
    }


def _plan(source: Source, split: str, settings: Settings) -> dict[str, Any]:
    """What has to be equal for a killed run to be carried on from."""
    return _plan_fields(source, split, settings) | {
        "max_pixels": settings.max_pixels,
        "on_truncated": settings.on_truncated,
        "unit_size": UNIT_SIZE,
        "tools": ", ".join(
            f"{tool} {version}" for tool, version in tool_versions(settings.backend).items()
        ),
    }


def _plan_of_card(card: Card) -> dict[str, Any]:
    """What has to be equal for a finished run to be the one asked for."""
    fields = ("side", "quality", "backend", "filter", "fit", "exif", "source")
    return {name: getattr(card, name) for name in fields}


def _refuse_other_plan(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    for name, value in new.items():
        if old.get(name) != value:
            what = (
                "from other pictures (names or sizes differ)"
                if name == "source"
                else f"with {name.replace('_', '-')} {old.get(name)}, this command says {value}"
            )
            raise UserError(f"{folder} was prepared {what}; give another OUT, or remove this one")


def _units(
    source: Source, split: str, folder: Path, rows_folder: Path, settings: Settings
) -> list[Unit]:
    originals = source.splits[split]
    names = _output_names(source, originals)
    images_folder = folder.with_name(folder.name + ".partial")
    return [
        Unit(
            number=number,
            root=source.root,
            images_folder=images_folder,
            rows_file=rows_folder / f"{number:06d}.jsonl",
            originals=originals[start : start + UNIT_SIZE],
            names=tuple(names[start : start + UNIT_SIZE]),
            settings=settings,
        )
        for number, start in enumerate(range(0, len(originals), UNIT_SIZE))
    ]


def _output_names(source: Source, originals: tuple[Original, ...]) -> list[str]:
    """`<class>/<file>` for each original: its own name where that is a JPEG's, else with .jpg.

    A name that is taken (a/1.jpg and b/1.jpg in one class) gets a number.
    """
    names: list[str] = []
    taken: set[str] = set()
    for original in originals:
        path = PurePosixPath(original.path)
        jpeg = path.suffix.lower() in (".jpg", ".jpeg")
        stem, suffix = (path.stem, path.suffix) if jpeg else (path.name, ".jpg")
        # Valid UTF-8, and short enough for a suffix and a number after it.
        stem = os.fsencode(stem).decode("utf-8", "replace")
        stem = stem.encode()[:STEM_BYTES].decode("utf-8", "ignore")
        prefix, number = f"{source.classes[original.label]}/{stem}", 1
        name = prefix + suffix
        while name in taken:
            number += 1
            name = f"{prefix}~{number}{suffix}"
        taken.add(name)
        names.append(name)
    return names


def tool_versions(backend: str) -> dict[str, str]:
    """The versions of what decides the bytes."""
    import PIL
    import simplejpeg

    from prep import scale

    tools = {"prep": __version__, "pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}
    if backend == "opencv-2012":
        tools["opencv"] = scale.opencv_version()
    return tools
