"""ImageNet's own archives, read where they lie: nothing is unpacked.

    SRC/ILSVRC2012_img_train.tar        a tar of a tar a class: each is one unit of work
    SRC/ILSVRC2012_img_val.tar          flat; labels from the devkit, by the number in the name
    SRC/ILSVRC2012_img_test*.tar        flat, without labels
    SRC/ILSVRC2012_devkit_t12.tar.gz    or the folder that it unpacks to

A split may be unpacked instead: SRC/train/<wnid>/, and SRC/val/ or SRC/test/, sorted or flat.
The devkit numbers classes by ILSVRC id; a label here is the rank of the wnid, as everywhere.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from prep.devkit import Devkit, read_devkit
from prep.handover import UNLABELLED
from prep.program import UserError
from prep.progress import SOON, progress
from prep.sources.folders import (
    LabelOf,
    check_classes,
    class_folders,
    constant,
    foreign_classes,
)
from prep.sources.listing import (
    SPLITS,
    Listing,
    ListingBuilder,
    Picture,
    Skipped,
    Source,
    Split,
)
from prep.sources.tars import (
    NOT_REGULAR,
    READ_AHEAD,
    DamagedArchiveError,
    Member,
    members,
    read_member,
    read_members,
    size_of,
)
from prep.sources.trees import label_by_file
from prep.sources.walk import subfolders

ARCHIVES = {
    "train": ("ILSVRC2012_img_train.tar",),
    "val": ("ILSVRC2012_img_val.tar",),
    "test": ("ILSVRC2012_img_test_v10102019.tar", "ILSVRC2012_img_test.tar"),
}
LISTED_AT_ONCE = 100  # members between two looks at the clock
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_CLASS_TAR = re.compile(r"(n\d{8})\.tar", re.ASCII)


def find_archives(root: Path, wanted: Sequence[str]) -> Source | None:
    """The archives in `root`; None when neither train's nor val's is there.

    A split without archive is taken from its folder, where it was unpacked; test's archive counts
    beside such a folder.
    Raises UserError when one is damaged or, for val, the devkit is missing.
    """
    archives = {
        split: next((root / name for name in names if (root / name).is_file()), None)
        for split, names in ARCHIVES.items()
    }
    taught = [split for split in ("train", "val") if archives[split]]
    if not taught and not (archives["test"] and (root / "train").is_dir()):
        return None
    kit = _find_devkit(root)
    by_class = _class_tars(archives["train"]) if archives["train"] else {}
    unpacked = [split for split in SPLITS if not archives[split] and (root / split).is_dir()]
    told = by_class or subfolders(root / "train") or (set(kit.labels.values()) if kit else ())
    classes = tuple(sorted(told))
    names = tuple(kit.names.get(wnid, wnid) if kit else wnid for wnid in classes)
    splits, skipped = {}, Skipped()
    if folders := [split for split in unpacked if split in wanted]:
        found = class_folders(root, folders, _val_labels(root, kit), classes)
        splits, skipped = found.splits, found.skipped
    for split, path in archives.items():
        if path is not None and split in wanted:
            splits[split] = _archived(path, split, classes, by_class, kit)
    check_classes(root, classes, splits)
    kind = "ImageNet's archives" + (" and folders" if folders else "")
    return Source(root, kind, classes, names, splits, skipped, data_set="imagenet-1k")


def _archived(
    path: Path,
    split: str,
    classes: tuple[str, ...],
    by_class: dict[str, Member],
    kit: Devkit | None,
) -> Split:
    """One split's archive; `by_class` is what train's holds."""
    if split == "train":
        builder = ListingBuilder((path.name,))
        for label, wnid in enumerate(classes):
            member = by_class[wnid]
            builder.add(f"{path.name}/{member.name}", label, member.size, 0, member.offset)
        size = str(path.stat().st_size)
        return Split(builder.build(), read_class_tars, of_archives=True, contents=(size,))
    if split == "test":
        return _flat(path, split, constant(UNLABELLED))
    if kit is None:
        raise UserError(
            f"{path} has no labels of its own: put {DEVKIT} beside it, or give --split train"
        )
    return _flat(path, split, label_by_file(kit.labels, classes, path.with_name(DEVKIT)))


def find_folders(root: Path, wanted: Sequence[str]) -> Source:
    """Class folders; a flat validation folder gets its labels from a devkit in `root`."""
    kit = _find_devkit(root)
    source = class_folders(root, wanted, _val_labels(root, kit))
    if kit is None:
        return source
    pairs = zip(source.classes, source.names, strict=True)
    return dataclasses.replace(
        source, names=tuple(kit.names.get(wnid, name) for wnid, name in pairs)
    )


def _val_labels(root: Path, kit: Devkit | None) -> Callable[[tuple[str, ...]], LabelOf] | None:
    """What class_folders asks for, where there is a devkit."""
    if kit is None:
        return None
    labels = kit.labels
    return lambda classes: label_by_file(labels, classes, root / DEVKIT)


def _find_devkit(root: Path) -> Devkit | None:
    """The devkit in `root`, packed or not; None when there is none."""
    for name in (DEVKIT, DEVKIT.removesuffix(".tar.gz")):
        if (root / name).exists():
            return read_devkit(root / name)
    return None


def _class_tars(path: Path) -> dict[str, Member]:
    """The tar of each class in the training archive, by wnid; reads a thousand headers."""
    found: dict[str, Member] = {}
    for member in _members(path):
        match = _CLASS_TAR.fullmatch(PurePosixPath(member.name).name)
        if member.regular and match and match[1] not in found:
            found[match[1]] = member
        elif not member.folder:
            raise UserError(
                f"{path} holds {member.name!r}; expected a tar a class, such as n01440764.tar, "
                "each once: get it again"
            )
    if not found:
        raise UserError(f"{path} holds no class tars; get it again")
    return found


def _flat(path: Path, split: str, label_of: LabelOf) -> Split:
    """Every picture of a flat archive, in its order."""
    builder = ListingBuilder((path.name,))
    foreign: Counter[str] = Counter()
    with progress(f"list {split}", None, after=SOON) as report:
        for number, member in enumerate(_members(path), start=1):
            if number % LISTED_AT_ONCE == 0:
                report(LISTED_AT_ONCE)
            if member.folder:
                continue
            label = label_of(PurePosixPath(member.name).name)
            if isinstance(label, int):
                size = member.size if member.regular else NOT_REGULAR
                builder.add(f"{path.name}/{member.name}", label, size, 0, member.offset)
            else:
                foreign[label] += 1
    return Split(
        builder.build(),
        read_members,
        contents=(str(path.stat().st_size),),
        gaps=foreign_classes(split, foreign),
    )


def _members(path: Path) -> Iterator[Member]:
    try:
        with path.open("rb", READ_AHEAD) as file:
            yield from members(file, 0, size_of(file))
    except DamagedArchiveError as error:
        raise UserError(f"{path} {error}; get it again") from error


def read_class_tars(root: Path, listing: Listing) -> Iterator[Picture]:
    """The pictures of whole class tars inside the training archive, in one sequential pass.

    What is no regular file is a picture that could not be read. Raises UserError when a class tar
    is damaged: how many pictures are lost cannot be known.
    """
    path = root / listing.containers[0]
    with path.open("rb", READ_AHEAD) as file:
        for name, place in zip(listing.names, listing.places, strict=True):
            label, size, _, offset = place.item()
            try:
                for member in members(file, offset, size):
                    full_name = f"{name}/{member.name}"
                    if not member.folder:
                        size_here = member.size if member.regular else NOT_REGULAR
                        yield read_member(file, full_name, label, member.offset, size_here)
            except DamagedArchiveError as error:
                raise UserError(f"{path}: {name} {error}; get the archive again") from error
