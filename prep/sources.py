"""Recognises a source of pictures: class folders, as ImageFolder has them.

    SRC/train/<class>/..., SRC/val/<class>/... [, SRC/test/<class>/...]
    SRC/<class>/...                              (one split, called train)

Pictures may lie in subfolders of a class folder (Tiny ImageNet's train/<wnid>/images). The label
of a class is the rank of its folder's name. `SRC/words.txt`, lines of `<class><tab><name>` as
WordNet and Tiny ImageNet have it, gives the names for people.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from prep.program import UserError

SPLITS = ("train", "val", "test")
# Formats that Pillow reads with its default build; other files in a class folder are not pictures.
EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .gif .webp .tif .tiff .ppm .pgm .pbm .pnm .avif".split()  # noqa: SIM905
)


@dataclasses.dataclass(frozen=True)
class Original:
    """One picture of the source."""

    path: str  # relative to the source's folder, with slashes
    label: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Source:
    """What lies under a folder; the pictures of each split are in label, then name order."""

    root: Path
    classes: tuple[str, ...]  # folder names, label order
    names: tuple[str, ...]  # for people, label order
    splits: dict[str, tuple[Original, ...]]
    skipped: int  # files that are not pictures by their extension

    def fingerprint(self, split: str) -> str:
        """sha256 over the classes and over path and size of every picture of the split."""
        digest = hashlib.sha256("\n".join(self.classes).encode("utf-8", "surrogateescape"))
        for original in self.splits[split]:
            line = f"\n{original.path}\t{original.bytes}"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def find_source(root: Path) -> Source:
    """List a source. Raises UserError when `root` is missing, empty or has no class folders."""
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {state}; give the folder that holds train/ and val/, or classes")
    folders = {name: root / name for name in SPLITS if (root / name).is_dir()}
    for name, folder in list(folders.items()):
        if _subfolders(folder):
            continue
        if name == "test":  # ImageNet's has no labels
            del folders[name]
        else:
            raise UserError(
                f"{folder} holds no class folders; expected {folder}/<class>/<picture>: sort its "
                "pictures into such folders, or take it away"
            )
    folders = folders or {"train": root}
    classes = tuple(sorted({name for folder in folders.values() for name in _subfolders(folder)}))
    if not classes:
        raise UserError(
            f"{root} has no class folders; expected {root}/train/<class>/<picture> or "
            f"{root}/<class>/<picture>"
        )
    for name in classes:
        if not _is_utf8(name):
            raise UserError(f"the name of class folder {name!r} is not UTF-8; rename the folder")
    lister = _Lister(root)
    splits = {
        split: tuple(
            original
            for label, name in enumerate(classes)
            for original in lister.pictures(folder / name, label)
        )
        for split, folder in folders.items()
    }
    _check_classes(root, classes, splits)
    words = _read_words(root / "words.txt")
    names = tuple(words.get(name, name) for name in classes)
    return Source(root, classes, names, splits, lister.skipped)


def _check_classes(
    root: Path, classes: tuple[str, ...], splits: dict[str, tuple[Original, ...]]
) -> None:
    """Every class has a picture in the first split (train, where there is one), no split none."""
    for name, originals in splits.items():
        if not originals:
            raise UserError(
                f"{root} holds no pictures for {name}; known are {', '.join(sorted(EXTENSIONS))}"
            )
    split, originals = next(iter(splits.items()))
    present = {original.label for original in originals}
    empty = [name for label, name in enumerate(classes) if label not in present]
    if empty:
        shown = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
        raise UserError(
            f"{len(empty)} of {len(classes)} classes have no picture in {split} of {root}: "
            f"{shown}; add pictures or remove the folders"
        )


class _Lister:
    """Walks class folders in name order and counts what it passes over."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.skipped = 0

    def pictures(self, folder: Path, label: int) -> list[Original]:
        found: list[Original] = []
        for entry in _walk(folder):
            hidden = entry.name.startswith(".")  # such as macOS's ._n01440764_18.JPEG
            dangling = entry.is_symlink() and not Path(entry.path).exists()  # rejected later
            regular = entry.is_file() or dangling
            if regular and not hidden and Path(entry.name).suffix.lower() in EXTENSIONS:
                relative = os.path.relpath(entry.path, self._root).replace(os.sep, "/")
                size = 0 if dangling else entry.stat().st_size
                found.append(Original(relative, label, size))
            else:
                self.skipped += 1
        return sorted(found, key=lambda original: original.path)


def _walk(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return  # a class that this split does not have
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry.path)
        else:
            yield entry


def _subfolders(folder: Path) -> list[str]:
    try:
        return [
            entry.name
            for entry in os.scandir(folder)
            if entry.is_dir() and not entry.name.startswith(".")
        ]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_utf8(name: str) -> bool:
    """False for a file name of other bytes, which Python holds as lone surrogates."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _read_words(path: Path) -> dict[str, str]:
    """words.txt, if it is there."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); mend or remove it") from error
    pairs = (line.split("\t", 1) for line in lines if "\t" in line)
    return {wnid.strip(): name.strip() for wnid, name in pairs}
