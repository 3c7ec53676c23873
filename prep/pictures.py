"""From a run of a source's pictures to JPEGs and their rows; and how a split is cut into runs.

A run is what a unit of work is made of: consecutive entries of a split's listing or, where samples
are wanted one after the other, consecutive samples. An entry may also be an archive of one class.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from prep import images, prepared
from prep.images import Settings
from prep.manifest import Manifest
from prep.names import FileNames, class_folders
from prep.sources.listing import UNIT_SIZE, Listing, Picture, Read, Source, Split

# Stores one prepared picture under its name; returns where it begins in the file that holds it.
Store = Callable[[str, bytes], int]


@dataclasses.dataclass(frozen=True)
class Run:
    """Some entries of one split's listing, and what to make of them."""

    number: int
    root: Path  # the source's folder
    entries: Listing
    read: Read
    names: tuple[str, ...] | None  # "<class>/<file>", one an entry; None: named as they are read
    folders: tuple[str, ...]  # of the classes, label order
    whole_stem: bool  # file names without a dot before the ending
    settings: Settings


def prepare_run(run: Run, store: Store) -> list[prepared.Row]:
    """Prepare the pictures of a run; returns the row of each, the rejected ones too."""
    given = FileNames(run.folders, run.whole_stem)
    names = iter(run.names or ())
    rows = []
    for picture in run.read(run.root, run.entries):
        name = given.add(picture.label, picture.name) if run.names is None else next(names)
        rows.append(_prepare(picture, name, run.settings, store))
    return rows


def _prepare(picture: Picture, name: str, settings: Settings, store: Store) -> prepared.Row:
    row: prepared.Row = {
        "class": name.partition("/")[0],
        "label": picture.label,
        "name": name,
        "shard": None,
        "offset": 0,
        "source": os.fsencode(picture.name).decode("utf-8", "backslashreplace"),
        "width": 0,
        "height": 0,
        "kind": "",
        "bytes": 0,
        "crc32": 0,
        "sha256": None,
        "status": "rejected",
        "reason": picture.reason,
    }
    if picture.data is None:
        return row
    try:
        made = images.prepare(picture.data, settings)
    except images.RejectedImageError as error:
        return row | {"reason": str(error)}
    jpeg = images.encode_jpeg(made.pixels, settings.quality)
    return row | {
        "offset": store(name, jpeg),
        "width": made.width,
        "height": made.height,
        "kind": made.kind,
        "bytes": len(jpeg),
        "crc32": zlib.crc32(jpeg),
        "sha256": hashlib.sha256(jpeg).digest(),
        "status": "ok",
    }


# --------------------------------------------------------------------------- cutting a split


def runs(source: Source, name: str, settings: Settings, whole_stem: bool) -> Iterator[Run]:
    """The runs of a split in the order of its listing, made as they are needed."""
    split, folders = source.splits[name], class_folders(source.classes)
    given = FileNames(folders, whole_stem)
    for number, (start, stop) in enumerate(itertools.pairwise(split.unit_bounds().tolist())):
        entries = split.listing.part(start, stop)
        names = None if split.of_archives else _names(given, entries)
        yield _run(source, split, number, entries, names, folders, whole_stem, settings)


def runs_of_samples(source: Source, name: str, settings: Settings) -> Iterator[Run]:
    """The runs of a split in the order of samples: by label, then name.

    A picture has the name that `runs` gives it. Within a run the order is the listing's.
    """
    split, folders = source.splits[name], class_folders(source.classes)
    if split.of_archives:  # in label order, each a class
        yield from runs(source, name, settings, whole_stem=False)
        return
    names = _names(FileNames(folders, whole_stem=False), split.listing)
    table = pa.table({"label": split.listing.labels, "name": pa.array(names)})
    order = pc.sort_indices(table, [("label", "ascending"), ("name", "ascending")]).to_numpy()
    for number, start in enumerate(range(0, len(order), UNIT_SIZE)):
        some = np.sort(order[start : start + UNIT_SIZE]).astype(np.int64)
        entries, of_some = split.listing.take(some), tuple(names[place] for place in some.tolist())
        yield _run(source, split, number, entries, of_some, folders, False, settings)


def pictures_of_runs(
    source: Source, name: str, expected: Manifest | None
) -> npt.NDArray[np.int64] | None:
    """How many pictures each run has; None when that shows only as archives are read."""
    split = source.splits[name]
    if not split.of_archives:
        return np.diff(split.unit_bounds())
    images = {c.folder: c.images.get(name) for c in expected.classes} if expected else {}
    known = [images.get(source.classes[label]) for label in split.listing.labels.tolist()]
    return None if None in known else np.array(known)


def _names(given: FileNames, entries: Listing) -> tuple[str, ...]:
    pairs = zip(entries.labels.tolist(), entries.names, strict=True)
    return tuple(given.add(label, entry) for label, entry in pairs)


def _run(
    source: Source,
    split: Split,
    number: int,
    entries: Listing,
    names: tuple[str, ...] | None,
    folders: tuple[str, ...],
    whole_stem: bool,
    settings: Settings,
) -> Run:
    root = source.root.absolute()  # a worker may be elsewhere
    return Run(number, root, entries, split.read, names, folders, whole_stem, settings)
