"""Walks folders: which files lie below one, and what their names say of them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from prep.images import is_picture
from prep.program import UserError

SPLIT_NAMES = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}
# How a split's folder is called elsewhere: beside classes, "dev" may well be one of them.
SPLIT_LIKE = frozenset(SPLIT_NAMES) - {"dev"}
_SPLIT = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_NAMES)})(?![a-z])")
MAX_DEPTH = 64  # folders within a class's folder
_Identity = tuple[int, int]  # of a folder, whatever the path to it: device and inode


def holds_pictures(folder: Path) -> bool:
    """Whether a file below `folder` is a picture by its name."""
    return any(is_picture(entry.name) for _, entry in walk(folder, folder.name))


def split_of(shard: str) -> str:
    """The split of a shard, by its place within the source; what nothing is said of is train.

    A first folder that is called as a split decides: in `val/train.tar`, "train" may be a class.
    Else the file's name does if it holds one, then its folders.
    """
    name = shard.lower()
    first, _, inside = name.partition("/")
    if inside and first in SPLIT_NAMES:
        return SPLIT_NAMES[first]
    found = _SPLIT.search(name.rpartition("/")[2]) or _SPLIT.search(name)
    return SPLIT_NAMES[found[1]] if found else "train"


def walk(folder: Path, relative: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file below `folder`, with its path within the source.

    Links to folders are followed, but not back into a folder that they lie in.
    """
    try:
        above = [_identity(place.stat()) for place in (folder, *_parents(folder))]
    except FileNotFoundError:
        return  # a class that this split does not have
    if above[0] not in above[1:]:
        yield from _walk_below(str(folder), relative, above, MAX_DEPTH)


def _parents(folder: Path) -> Sequence[Path]:
    """The folders that lead here by name: in a/b/.. it is not b that does."""
    place = folder.absolute()
    plain = Path(os.path.normpath(place))
    same = plain.exists() and plain.samefile(place)  # not where b is a link to elsewhere
    return (plain if same else place).parents


def _walk_below(
    folder: str, relative: str, above: list[_Identity], levels: int
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """`above`: the folders that lead here, this one too; `levels`: how many may follow."""
    entries = list(os.scandir(folder))  # closed before the folders in it are walked
    for entry in entries:
        path = f"{relative}/{entry.name}"
        if not _is_folder(entry):
            yield path, entry
        elif (identity := _identity(entry.stat())) not in above:
            if not levels:
                raise UserError(
                    f"{entry.path} lies more than {MAX_DEPTH} folders deep in a class; move its "
                    "pictures up, or take it away"
                )
            yield from _walk_below(entry.path, path, [*above, identity], levels - 1)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def subfolders(folder: Path) -> list[str]:
    """Those that may be classes or splits: a name that begins with a dot is hidden."""
    return [name for name in _folders_in(folder) if not name.startswith(".")]


def hidden_folders(folder: Path) -> list[str]:
    """Those with a name that begins with a dot, if there are pictures in them."""
    found = []
    for name in sorted(_folders_in(folder)):
        with contextlib.suppress(OSError, UserError):  # not for us to read
            if name.startswith(".") and holds_pictures(folder / name):
                found.append(name)
    return found


def _folders_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if _is_folder(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []
