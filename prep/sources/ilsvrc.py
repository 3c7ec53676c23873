"""ImageNet's own archives, read where they lie: nothing is unpacked.

    SRC/ILSVRC2012_img_train.tar        a tar of a tar a class: each is one unit of work
    SRC/ILSVRC2012_img_val.tar          flat; labels from the devkit, by the number in the name
    SRC/ILSVRC2012_img_test*.tar        flat, without labels
    SRC/ILSVRC2012_devkit_t12.tar.gz    or the folder that it unpacks to

The devkit numbers classes by ILSVRC id; a label here is the rank of the wnid, as everywhere.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from prep.devkit import Devkit, read_devkit
from prep.handover import UNLABELLED
from prep.program import UserError
from prep.sources.folders import LabelOf, check_classes, class_folders, constant
from prep.sources.listing import SPLITS, Listing, ListingBuilder, Picture, Source, Split
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

ARCHIVES = {
    "train": ("ILSVRC2012_img_train.tar",),
    "val": ("ILSVRC2012_img_val.tar",),
    "test": ("ILSVRC2012_img_test_v10102019.tar", "ILSVRC2012_img_test.tar"),
}
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_CLASS_TAR = re.compile(r"(n\d{8})\.tar", re.ASCII)


def find_archives(root: Path, wanted: Sequence[str]) -> Source | None:
    """The archives in `root`; None when neither train's nor val's is there.

    Raises UserError when one is damaged or, for val, the devkit is missing.
    """
    archives = {
        split: next((root / name for name in names if (root / name).is_file()), None)
        for split, names in ARCHIVES.items()
    }
    if not archives["train"] and not archives["val"]:
        return None
    kit = _find_devkit(root)
    by_class = _class_tars(archives["train"]) if archives["train"] else {}
    classes = tuple(sorted(by_class or (set(kit.labels.values()) if kit else ())))
    names = tuple(kit.names.get(wnid, wnid) if kit else wnid for wnid in classes)
    splits = {}
    for split in SPLITS:
        path = archives[split]
        if path is None or split not in wanted:
            continue
        if split == "train":
            builder = ListingBuilder((path.name,))
            for label, wnid in enumerate(classes):
                member = by_class[wnid]
                builder.add(f"{path.name}/{member.name}", label, member.size, 0, member.offset)
            splits[split] = Split(builder.build(), read_class_tars, of_archives=True)
        elif split == "val":
            if kit is None:
                raise UserError(
                    f"{path} has no labels of its own: put {DEVKIT} beside it, or give "
                    "--split train"
                )
            splits[split] = _flat(path, label_by_file(kit.labels, classes, root / DEVKIT))
        else:
            splits[split] = _flat(path, constant(UNLABELLED))
    check_classes(root, classes, splits)
    return Source(root, "ImageNet's archives", classes, names, splits, data_set="imagenet-1k")


def find_folders(root: Path, wanted: Sequence[str]) -> Source:
    """Class folders; a flat validation folder gets its labels from a devkit in `root`."""
    kit = _find_devkit(root)
    if kit is None:
        return class_folders(root, wanted, None)
    labels, names = kit.labels, kit.names
    source = class_folders(
        root, wanted, lambda classes: label_by_file(labels, classes, root / DEVKIT)
    )
    return dataclasses.replace(
        source,
        names=tuple(
            names.get(wnid, name) for wnid, name in zip(source.classes, source.names, strict=True)
        ),
    )


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


def _flat(path: Path, label_of: LabelOf) -> Split:
    """Every picture of a flat archive, in its order."""
    builder = ListingBuilder((path.name,))
    for member in _members(path):
        if not member.folder:
            label = label_of(PurePosixPath(member.name).name)
            size = member.size if member.regular else NOT_REGULAR
            builder.add(f"{path.name}/{member.name}", label, size, 0, member.offset)
    return Split(builder.build(), read_members)


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
