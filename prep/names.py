"""Names of prepared files, made from names that cannot be trusted.

A name in a source, above all in an archive, may hold "..", a slash, bytes of any kind, or differ
from another in case or Unicode form only. A prepared file is always `<class>/<file>`: one folder,
one file, both plain, and no two that a file system without cases would take for the same.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence

from prep.handover import UNLABELLED
from prep.sources.listing import UNLABELLED_CLASS

NAME_BYTES = 240  # of a name; with an ending and a number it stays below the usual limit of 255
JPEG_ENDINGS = (".jpg", ".jpeg")
_PLAIN = re.compile(r"\w[\w. -]*", re.ASCII)


def plain_name(name: str) -> str:
    """One component of a path, of at most NAME_BYTES, from any text."""
    if _PLAIN.fullmatch(name):  # nearly all of them
        return name[:NAME_BYTES]
    name = unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))
    kept = "".join("_" if c in "/\\" or unicodedata.category(c) == "Cc" else c for c in name)
    kept = kept.encode()[:NAME_BYTES].decode("utf-8", "ignore")
    return kept if kept.strip(". ") else "_" * max(len(kept), 1)


def class_folders(classes: Sequence[str]) -> tuple[str, ...]:
    """A folder for each class, in label order; none is that of pictures without a label."""
    given = _Distinct()
    given.add("", UNLABELLED_CLASS, "")
    return tuple(given.add("", plain_name(name), "") for name in classes)


def folder_of(label: int, folders: Sequence[str]) -> str:
    return UNLABELLED_CLASS if label == UNLABELLED else folders[label]


class FileNames:
    """Gives each picture of a split its file's name; one that is taken gets a number."""

    def __init__(self, folders: Sequence[str], whole_stem: bool) -> None:
        """`whole_stem`: no dot before the ending, where WebDataset would cut the name."""
        self._folders = folders
        self._whole_stem = whole_stem
        self._distinct = _Distinct()

    def add(self, label: int, name: str) -> str:
        """`<folder>/<file>` for the picture `name`: its own name where that is a JPEG's."""
        stem, ending = os.path.splitext(name.rpartition("/")[2])  # noqa: PTH122 (no real path)
        if ending.lower() not in JPEG_ENDINGS:
            stem, ending = stem + ending, ".jpg"
        stem = plain_name(stem)
        if self._whole_stem:
            stem, ending = stem.replace(".", "_"), ".jpg"
        return self._distinct.add(f"{folder_of(label, self._folders)}/", stem, ending)


class _Distinct:
    """Names that differ in more than case and Unicode form."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}  # of each name that is taken: its last number

    def add(self, prefix: str, stem: str, ending: str) -> str:
        name = prefix + stem + ending
        first = key = _key(name)
        while key in self._last:
            self._last[first] += 1
            name = f"{prefix}{stem}~{self._last[first]}{ending}"
            key = _key(name)
        self._last[key] = 1
        return name


def _key(name: str) -> str:
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
