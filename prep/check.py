"""What a source holds against what its data set is known to hold, before anything is written.

The quick part lists names and sizes, as `prep resize` does first. The thorough part also reads the
headers inside archives, which gives the pictures of each class, and, when asked, every archive's
md5.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prep.comparison import compare, first_of, knowing, match
from prep.manifest import Manifest, load
from prep.program import UserError, counted, examples
from prep.progress import SOON, progress
from prep.sources.listing import Listing, Source, Split
from prep.sources.tars import READ_AHEAD, DamagedArchiveError, members
from prep.sources.walk import subfolders
from prep.units import run_units

LISTED_AT_ONCE = 1 << 16  # pictures
MEGABYTE = 10**6  # bytes
_WNID_AGAIN = re.compile(r"_n\d{8}(?=\.\w+$)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class OddityFound:
    """Of the files of one kind that a data set is known for: how many are in the source."""

    kind: str
    split: str
    found: int
    known: int


@dataclasses.dataclass(frozen=True)
class Contents:
    """What reading every header of a source showed."""

    counts: dict[str, npt.NDArray[np.int64]]  # pictures of each class, by split
    oddities: list[OddityFound]  # those whose names are known


def manifest_of(source: Source) -> Manifest | None:
    """The manifest of the source's data set; where its structure tells none, by its classes."""
    if source.data_set:
        return load(source.data_set)
    return match(source.classes)


def named(source: Source, manifest: Manifest | None) -> Source:
    """`source` with the classes' names of a manifest that knows all of them, where it has none."""
    if manifest is None:
        manifest = next(iter(knowing(source.classes)), None)
    if manifest is None:
        return source
    known = {entry.folder: entry.name for entry in manifest.classes}
    pairs = zip(source.classes, source.names, strict=True)
    return dataclasses.replace(
        source,
        names=tuple(known.get(folder, name) if name == folder else name for folder, name in pairs),
    )


def refuse_contradictions(source: Source, manifest: Manifest | None, wanted: Sequence[str]) -> None:
    """The quick check. Raises UserError when the source has gaps or is not as `manifest` says."""
    found = contradictions(source, manifest, wanted)
    if found:
        raise UserError(
            f"{source.root} {verdict(manifest)}: {first_of(found)}; `prep check` tells all, "
            "--partial takes what is there"
        )


def verdict(manifest: Manifest | None) -> str:
    return f"contradicts {manifest.title}" if manifest else "is not whole"


def contradictions(
    source: Source,
    manifest: Manifest | None,
    wanted: Sequence[str],
    counts: Mapping[str, npt.NDArray[np.int64] | None] | None = None,
) -> list[str]:
    """The source's own gaps and where it contradicts the manifest, in sentences, by split `wanted`.

    counts: pictures of each class by split; None: as listed, where archives are not looked into.
    """
    gaps = [gap for name in wanted if name in source.splits for gap in source.splits[name].gaps]
    if manifest is None:
        return gaps
    if counts is None:
        counts = {name: split.counts(len(source.classes)) for name, split in source.splits.items()}
    about = dataclasses.replace(
        manifest, splits={name: s for name, s in manifest.splits.items() if name in wanted}
    )
    images: dict[str, list[int] | int | None] = {
        name: len(source.splits[name].listing)
        if name in about.splits and not about.splits[name].labelled
        else None
        if found is None
        else found.tolist()
        for name, found in counts.items()
    }
    sizes = {
        archive.file: (source.root / archive.file).stat().st_size
        for archive in manifest.archives
        if set(archive.holds) & {*wanted, "devkit"} and (source.root / archive.file).is_file()
    }
    return gaps + compare(about, source.classes, images, sizes)


def notes(source: Source, divide: str) -> list[str]:
    """What may be a slip, though it contradicts nothing, in sentences; archives are not read.

    divide: what makes a val split, such as --val-fraction 0.2; "": val is not wanted.
    """
    found, classes, splits = [], source.classes, source.splits
    if len(classes) == 1:
        found.append(
            f"there is one class only, {classes[0]}; is {source.root} the folder above the class "
            "folders?"
        )
    train, val = splits.get("train"), splits.get("val")
    if train and not val and divide and not train.of_archives:  # which cannot be divided
        found.append(f"no validation split; {divide} would make one of train")
    taught, judged = (split.counts(len(classes)) if split else None for split in (train, val))
    if taught is not None and judged is not None:
        lacking = [classes[n] for n in np.flatnonzero((taught > 0) & (judged == 0)).tolist()]
        if lacking:
            verb = "has" if len(lacking) == 1 else "have"
            found.append(
                f"{counted(len(lacking), 'class')} of train {verb} no picture in val: "
                f"{examples(lacking)}"
            )
    return found


def look_inside(source: Source, manifest: Manifest | None, jobs: int | None) -> Contents:
    """Count the pictures of every class, in archives too, and the known odd files.

    Raises UserError when an archive is damaged.
    """
    counts, oddities = {}, []
    for name, split in source.splits.items():
        kinds = {
            file: oddity.kind
            for oddity in (manifest.oddities if manifest else ())
            if oddity.split == name
            for file in oddity.files
        }
        paths = {file: kind for file, kind in kinds.items() if "/" in file}
        known = {file: kind for file, kind in kinds.items() if file not in paths}
        counts[name] = np.zeros(len(source.classes), np.int64)
        odd: Counter[str] = Counter()
        with progress(f"check {name}", None) as report:
            for labels, found in run_units(look_at, _units(source, split, known), jobs):
                counts[name] += np.bincount(labels[labels >= 0], minlength=len(source.classes))
                odd.update(found)
                report(len(labels))
        odd.update(kind for file, kind in paths.items() if _lies_in(source.root, file))
        totals = Counter([*known.values(), *paths.values()])
        oddities += [OddityFound(kind, name, odd[kind], totals[kind]) for kind in totals]
    return Contents(counts, oddities)


def _lies_in(root: Path, path: str) -> bool:
    """Whether there is a file or folder `path`, which may begin in a folder of the source."""
    return any((root / folder / path).exists() for folder in ("", *subfolders(root)))


@dataclasses.dataclass(frozen=True)
class _Unit:
    root: Path
    entries: Listing
    of_archives: bool
    known: dict[str, str]  # file name to kind of the odd files


def _units(source: Source, split: Split, known: dict[str, str]) -> Iterator[_Unit]:
    step = 1 if split.of_archives else LISTED_AT_ONCE
    for start in range(0, len(split.listing), step):
        entries = split.listing.part(start, start + step)
        yield _Unit(source.root, entries, split.of_archives, known)


def look_at(unit: _Unit) -> tuple[npt.NDArray[np.int32], list[str]]:
    """The label of every picture of a unit, and the kinds of the odd files among them."""
    names, labels = unit.entries.names, unit.entries.labels
    if unit.of_archives:
        path = unit.root / unit.entries.containers[0]
        label, size, _, offset = unit.entries.places[0].item()
        try:
            with path.open("rb", READ_AHEAD) as file:
                names = [m.name for m in members(file, offset, size) if not m.folder]
        except DamagedArchiveError as error:
            raise UserError(
                f"{path}: {unit.entries.names[0]} {error}; get the archive again"
            ) from error
        labels = np.full(len(names), label, np.int32)
    found = (unit.known.get(_own_name(name)) for name in names)
    return labels, [kind for kind in found if kind]


def _own_name(name: str) -> str:
    """A picture's file name as ImageNet has it; Hugging Face's ends in its wnid again."""
    return _WNID_AGAIN.sub("", name.rpartition("/")[2])


def check_md5s(source: Source, manifest: Manifest) -> Iterator[tuple[str, bool]]:
    """Each archive of the manifest that is there, as it is done, and whether its md5 is right.

    One after the other: nearly all bytes are the training archive's.
    """
    for archive in manifest.archives:
        path = source.root / archive.file
        if path.is_file():
            yield path.name, _md5_of(path) == archive.md5


def _md5_of(path: Path) -> str:
    digest, megabytes = hashlib.md5(), path.stat().st_size // MEGABYTE
    with path.open("rb") as file, progress(f"md5 {path.name}", megabytes, "MB", SOON) as report:
        while data := file.read(MEGABYTE):
            digest.update(data)
            report(len(data) // MEGABYTE)
    return digest.hexdigest()
