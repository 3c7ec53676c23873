"""WebDataset tars: a sample is consecutive members `<key>.jpg` and `<key>.cls` (or `.json`).

    SRC/train-0000.tar, SRC/imagenet1k-validation-00.tar, SRC/val/0000.tar, ...

The split is the one that the file's name holds, else its folder's; without any it is train. `.cls`
has the class's number in decimal digits, `.json` has it as "label" or "cls". A key is a member's
name up to the first dot of its last part; it has one picture and one label. `SRC/classes.txt`, a
name a line, gives the classes' names.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from prep.files import read_regular
from prep.handover import UNLABELLED
from prep.images import EXTENSIONS
from prep.program import UserError
from prep.progress import progress
from prep.sources.listing import SPLITS, Listing, ListingBuilder, Source, Split
from prep.sources.numbers import missing_shards
from prep.sources.tars import (
    NOT_REGULAR,
    READ_AHEAD,
    DamagedArchiveError,
    Member,
    members,
    read_members,
    size_of,
)
from prep.sources.walk import holds_pictures, split_of, subfolders
from prep.units import run_units

LABEL_BYTES = 1 << 16  # a .cls or .json of more is none
MAX_CLASSES = 1 << 20
ONE_OF_EACH = "make the shard again with one picture and one label a key"
_NUMBER = re.compile(rb"\s*-?[0-9]+\s*")


def find_webdataset(root: Path, jobs: int | None) -> Source | None:
    """The tars in `root` and its folders; None when there are none, or folders of pictures too.

    Reads every header, shards side by side. Shards that are missing by the others' numbers are a
    gap of their split. Raises UserError when a tar is damaged, or a sample
    of train or val has no label.
    """
    files = _files(root)
    if not files or any(holds_pictures(root / name) for name in subfolders(root)):
        return None
    splits = {split: _split(root, split, files[split], jobs) for split in SPLITS if split in files}
    if not any(len(split.listing) for split in splits.values()):
        raise UserError(f"the tars in {root} hold no pictures; expected <key>.jpg and <key>.cls")
    count = max(int(split.listing.labels.max(initial=-1)) for split in splits.values()) + 1
    names = tuple(_class_names(root / "classes.txt", count))
    return Source(root, "WebDataset tars", names, names, splits)


def _files(root: Path) -> dict[str, tuple[str, ...]]:
    """The tars of each split."""
    files: dict[str, tuple[str, ...]] = {}
    for path in sorted([*root.glob("*.tar"), *root.glob("*/*.tar")]):
        if not path.is_file():
            continue
        relative = path.relative_to(root).as_posix()
        split = split_of(relative)
        files[split] = (*files.get(split, ()), relative)
    return files


def _split(root: Path, split: str, files: tuple[str, ...], jobs: int | None) -> Split:
    shards = {}
    with progress(f"list {split}", None) as report:
        for number, names, places in run_units(
            list_shard, enumerate(map(root.joinpath, files)), jobs
        ):
            shards[number] = names, places
            report(len(names))
    listing = Listing(
        [f"{file}/{name}" for number, file in enumerate(files) for name in shards[number][0]],
        np.concatenate([shards[number][1] for number in range(len(files))]),
        files,
    )
    listing.places["container"] = np.repeat(
        np.arange(len(files)), [len(shards[number][0]) for number in range(len(files))]
    )
    missing = np.flatnonzero(listing.labels == UNLABELLED)
    if split != "test" and len(missing):
        raise UserError(
            f"{root / listing.names[missing[0]]} has no label: it needs a .cls, or a .json with a "
            "label, of its key"
        )
    sizes = tuple(str((root / file).stat().st_size) for file in files)
    return Split(listing, read_members, contents=sizes, gaps=tuple(missing_shards(files)))


def list_shard(shard: tuple[int, Path]) -> tuple[int, list[str], npt.NDArray[np.void]]:
    """The shard's number, and name and place of every picture in it."""
    number, path = shard
    builder = ListingBuilder()
    try:
        with path.open("rb", READ_AHEAD) as file:
            for picture, label in _samples(path, file):
                size = picture.size if picture.regular else NOT_REGULAR
                builder.add(picture.name, label, size, 0, picture.offset)
    except (OSError, DamagedArchiveError) as error:
        raise UserError(f"{path} {error}; get it again") from error
    listing = builder.build()
    return number, listing.names, listing.places


def _samples(path: Path, file: BinaryIO) -> Iterator[tuple[Member, int]]:
    """The picture and the label, or UNLABELLED, of every sample that has a picture."""
    files = (member for member in members(file, 0, size_of(file)) if not member.folder)
    for key, parts in itertools.groupby(files, lambda member: _key(member.name)[0]):
        picture, label = None, UNLABELLED
        for member in parts:
            ending = _key(member.name)[1]
            if f".{ending}" in EXTENSIONS:
                if picture is not None:
                    raise UserError(f"{path}: key {key} has two pictures; {ONE_OF_EACH}")
                picture = member
            elif ending in ("cls", "json") and member.regular:
                found = _label(path, file, member, ending)
                if UNLABELLED not in (label, found) and label != found:
                    raise UserError(
                        f"{path}: key {key} has labels {label} and {found}; {ONE_OF_EACH}"
                    )
                label = max(label, found)
        if picture is not None:
            yield picture, label


def _key(name: str) -> tuple[str, str]:
    """A member's key, and its ending in lower case."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return folder + slash + stem, ending.lower()


def _label(path: Path, file: BinaryIO, member: Member, ending: str) -> int:
    """The class's number in a .cls or .json; UNLABELLED where a .json has none."""
    file.seek(member.offset)
    data = file.read(min(member.size, LABEL_BYTES))
    try:
        value: Any
        if ending == "json":
            fields = json.loads(data)
            value = fields.get("label", fields.get("cls", UNLABELLED))
        else:
            value = int(data) if _NUMBER.fullmatch(data) else None
    except (ValueError, AttributeError, RecursionError):
        value = None
    if type(value) is not int or not UNLABELLED <= value < MAX_CLASSES:
        raise UserError(f"{path}: {member.name} holds no class's number; expected decimal digits")
    return value


def _class_names(path: Path, count: int) -> list[str]:
    """The lines of classes.txt, else the numbers of the classes."""
    try:
        names = [line.strip() for line in read_regular(path).decode("utf-8").splitlines()]
    except FileNotFoundError:
        return [f"{label:04d}" for label in range(count)]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); mend or remove it") from error
    if len(names) < count:
        raise UserError(f"{path} names {len(names)} classes, but a label is {count - 1}")
    return names
