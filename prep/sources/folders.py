"""Pictures as plain files: class folders, as ImageFolder has them, and folders without classes.

    SRC/train/<class>/..., SRC/val/<class>/... [, SRC/test/<class>/...]
    SRC/<class>/...                              (one split, called train)

Pictures may lie in subfolders of a class folder (Tiny ImageNet's train/<wnid>/images). The label
of a class is the rank of its folder's name. `SRC/words.txt`, lines of `<class><tab><name>` as
WordNet and Tiny ImageNet have it, gives the names for people.
"""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from prep.files import read_regular
from prep.handover import UNLABELLED
from prep.images import EXTENSIONS, MAX_BYTES, is_picture, too_many_bytes
from prep.program import UserError, counted, examples
from prep.progress import SOON, progress
from prep.sources.listing import (
    SPLITS,
    Listing,
    ListingBuilder,
    Picture,
    Skipped,
    Source,
    Split,
)
from prep.sources.walk import SPLIT_LIKE, SPLIT_NAMES, hidden_folders, subfolders, walk

# From a file's name its label, or the name of its class where that is none of train's.
LabelOf = Callable[[str], int | str]


def class_folders(
    root: Path,
    wanted: Sequence[str],
    val_labels: Callable[[tuple[str, ...]], LabelOf] | None,
    known: Sequence[str] = (),
    annotations: re.Pattern[str] | None = None,
) -> Source:
    """A tree of class folders; the entries of each split are in label, then name order.

    wanted: the splits to list. val_labels: from the classes, the labels of a validation folder
    that has no class folders. known: the classes, where there is no train/ to tell them.
    annotations: names of files that belong beside the pictures, so that nobody has to be told.
    Pictures of val or test whose class train does not have are left out: a gap of their split.
    Raises UserError when there are no class folders or when a split has no pictures.
    """
    folders = {name: name for name in SPLITS if (root / name).is_dir()}
    _refuse_other_split_names(root, with_splits=bool(folders))
    may_be_flat = {"test"} if val_labels is None else {"val", "test"}
    labelled = {
        name: folder
        for name, folder in folders.items()
        if subfolders(root / folder) and not (name in may_be_flat and _is_flat(root, name, known))
    }
    flat = set(folders) - set(labelled)
    for name in flat.intersection(wanted) - {"test"}:
        if name != "val" or val_labels is None:
            raise UserError(
                f"{root / name} holds no class folders; expected {root / name}/<class>/<picture>: "
                "sort its pictures into such folders, put ImageNet's devkit "
                f"(ILSVRC2012_devkit_t12.tar.gz) into {root}, or take the folder away"
            )
    labelled = labelled or ({} if folders else {"train": "."})
    found = {name: set(subfolders(root / folder)) for name, folder in labelled.items()}
    told = {*known} or found.get("train") or set().union(*found.values())
    classes = checked_classes(root, told)
    lister = Lister(root, annotations)
    splits = {}
    for name in [name for name in (folders or labelled) if name in wanted]:
        if name in labelled:
            rank = {class_name: label for label, class_name in enumerate(classes)}
            of_folder = {
                f"{labelled[name]}/{folder}".removeprefix("./"): constant(rank.get(folder, folder))
                for folder in sorted({*classes} | found[name])
            }
        elif name == "val" and val_labels is not None:
            of_folder = {name: val_labels(classes)}
        else:
            of_folder = {name: constant(UNLABELLED)}
        splits[name] = lister.split(name, of_folder)
    check_classes(root, classes, splits)
    words = read_words(root / "words.txt")
    names = tuple(words.get(name, name) for name in classes)
    return Source(root, "class folders", classes, names, splits, lister.skipped)


def _refuse_other_split_names(root: Path, with_splits: bool) -> None:
    """A folder called nearly as a split would be passed over beside train/, or be a class.

    One among classes may be a class. Raises UserError when it cannot be.
    """
    found = sorted(subfolders(root))
    odd = [name for name in found if name.lower() in SPLIT_LIKE and name not in SPLITS]
    if odd and (with_splits or len(odd) == len(found)):
        meant = SPLIT_NAMES[odd[0].lower()]
        to = "" if meant in found else f" to {meant}"
        raise UserError(
            f"{root / odd[0]} looks like a split, but a split's folder is called train, val or "
            f"test; rename it{to}, or take it away"
        )


def _is_flat(root: Path, split: str, known: Sequence[str]) -> bool:
    """Whether a split's folder is no tree of classes: none of its folders is a known class."""
    classes = set(known or subfolders(root / "train"))
    return bool(classes) and classes.isdisjoint(subfolders(root / split))


def checked_classes(root: Path, found: set[str]) -> tuple[str, ...]:
    """Class folders in label order. Raises UserError when there are none."""
    if not found:
        raise UserError(
            f"{root} has no class folders; expected {root}/train/<class>/<picture>, "
            f"{root}/<class>/<picture>, or a data set that prep knows (`prep resize --help`)"
        )
    return tuple(sorted(found))


def check_classes(root: Path, classes: Sequence[str], splits: dict[str, Split]) -> None:
    """Every class has a picture in train, and no split is empty."""
    for name, split in splits.items():
        if not len(split.listing):
            why = "; ".join(split.gaps) or f"known are {', '.join(sorted(EXTENSIONS))}"
            raise UserError(f"{root} holds no pictures for {name}; {why}")
    counts = splits["train"].counts(len(classes)) if "train" in splits else None
    empty = (
        [] if counts is None else [classes[label] for label in np.flatnonzero(counts == 0).tolist()]
    )
    if empty:
        shown = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
        raise UserError(
            f"{len(empty)} of {len(classes)} classes have no picture in train of {root}: "
            f"{shown}; add pictures or remove the folders"
        )


def constant(label: int | str) -> LabelOf:
    """The same label for every picture."""
    return lambda _: label


class Lister:
    """Walks folders in name order and counts what it passes over, but for `annotations`."""

    def __init__(self, root: Path, annotations: re.Pattern[str] | None = None) -> None:
        self._root = root
        self._annotations = annotations
        self._skipped = 0
        self._first_skipped = ""
        self._hidden: list[str] = []

    @property
    def skipped(self) -> Skipped:
        return Skipped(self._skipped, self._first_skipped, tuple(self._hidden))

    def split(self, name: str, of_folder: Mapping[str, LabelOf]) -> Split:
        """The split `name`: every picture below some folders, which are paths in the source."""
        builder = ListingBuilder()
        foreign: Counter[str] = Counter()
        for beside in sorted({folder.rpartition("/")[0] for folder in of_folder}):
            hidden = hidden_folders(self._root / beside)
            self._hidden += [f"{beside}/{folder}".removeprefix("/") for folder in hidden]
        with progress(f"list {name}", None, after=SOON) as report:
            for folder, label_of in of_folder.items():
                listed = sorted(self._pictures(folder))
                for file, size in listed:
                    label = label_of(file.rpartition("/")[2])
                    if isinstance(label, int):
                        builder.add(file, label, size)
                    else:
                        foreign[label] += 1
                report(len(listed))
        return Split(builder.build(), read_files, gaps=foreign_classes(name, foreign))

    def _pictures(self, folder: str) -> Iterator[tuple[str, int]]:
        """Path within the source and bytes of every picture below `folder`."""
        for relative, entry in walk(self._root / folder, folder):
            in_hidden_folder = "/." in relative[len(folder) : -len(entry.name)]
            if is_picture(entry.name) and not in_hidden_folder:
                try:
                    status = entry.stat()
                except OSError:  # a link to nothing or to itself: rejected when it is read
                    yield relative, 0
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield relative, status.st_size
                    continue
            if self._annotations is None or not self._annotations.fullmatch(entry.name):
                self._first_skipped = self._first_skipped or relative
                self._skipped += 1


def foreign_classes(split: str, foreign: Counter[str]) -> tuple[str, ...]:
    """The gap of a split with pictures of classes, by name, that train does not have."""
    if not foreign:
        return ()
    verb = "is" if foreign.total() == 1 else "are"
    return (
        f"{counted(foreign.total(), 'picture')} of {split} {verb} of "
        f"{counted(len(foreign), 'class')} that train does not have: {examples(sorted(foreign))}",
    )


def read_files(root: Path, listing: Listing) -> Iterator[Picture]:
    """The pictures of plain files."""
    for name, label, size in zip(
        listing.names, listing.labels.tolist(), listing.places["size"].tolist(), strict=True
    ):
        if size > MAX_BYTES:
            yield Picture(name, label, None, too_many_bytes(size))
            continue
        try:
            data = read_regular(f"{root}/{name}", MAX_BYTES)
        except OSError as error:
            yield Picture(name, label, None, f"cannot be read: {error.strerror}")
        else:
            yield Picture(name, label, data)


def read_words(path: Path) -> dict[str, str]:
    """words.txt, if it is there: the name of each class for people."""
    try:
        lines = read_regular(path).decode("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); mend or remove it") from error
    pairs = (line.split("\t", 1) for line in lines if "\t" in line)
    return {wnid.strip(): name.strip() for wnid, name in pairs}
