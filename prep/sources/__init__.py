"""Recognises a source of pictures by what is there; one module a kind.

Each kind's module lists the entries of every split and reads some of them again in a worker.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from prep.handover import UNLABELLED
from prep.manifest import Manifest, load, names
from prep.program import UserError, why_not
from prep.sources.cifar import find_cifar
from prep.sources.ilsvrc import find_archives, find_folders
from prep.sources.listing import SPLITS, Source, is_utf8
from prep.sources.parquet import find_parquet
from prep.sources.trees import find_caltech, find_kaggle, find_tiny_imagenet
from prep.sources.walk import subfolders
from prep.sources.webdataset import find_webdataset

# Data sets that are unpacked first, by the archive's name and the way to do it.
PACKED = {
    "cifar-10-python.tar.gz": "tar -xzf",
    "256_ObjectCategories.tar": "tar -xf",
    "tiny-imagenet-200.zip": "unzip -q",
}


def find_source(
    root: Path,
    wanted: Sequence[str] = SPLITS,
    manifest: Manifest | None = None,
    clutter: bool = False,
    jobs: int | None = 1,
) -> Source:
    """List a source. `manifest` names the classes of a source that has only their numbers.

    Raises UserError when `root` is missing, empty, not recognised, lacks a split that it should
    have, or contradicts itself.
    """
    if not root.is_dir():
        raise UserError(
            f"{root} {why_not(root, 'a folder')}; give the folder that holds train/ and val/, or "
            "classes"
        )
    for packed, command in PACKED.items():
        if (root / packed).is_file() and sum(1 for _ in root.iterdir()) == 1:
            raise UserError(f"{root / packed} has to be unpacked first: {command} {root / packed}")
    _refuse_outer_folder(root)
    source = (
        find_archives(root, wanted)
        or find_kaggle(root, wanted)
        or find_cifar(root)
        or find_tiny_imagenet(root, wanted)
        or find_caltech(root, clutter)
        or _find_numbered(root, manifest, jobs)
        or find_folders(root, wanted)
    )
    for name in (*source.classes, *source.names):
        if not is_utf8(name):
            raise UserError(
                f"{root} ({source.kind}) has a class {name!r}, a name that is not UTF-8; rename it"
            )
    source = source.keep(wanted)
    for name, split in source.splits.items():
        if not len(split.listing):
            raise UserError(f"{root} ({source.kind}) holds no pictures for {name}; get it again")
        if name != "test" and (split.listing.labels == UNLABELLED).any():
            first = split.listing.names[int((split.listing.labels == UNLABELLED).argmax())]
            raise UserError(f"{root / first} has no label; only a test split may be without")
    return source


def _refuse_outer_folder(root: Path) -> None:
    """A data set's outer folder, such as `unzip -d SRC` makes, is not a data set of one class."""
    folders = subfolders(root)
    if len(folders) == 1 and folders[0] not in SPLITS:
        inner = root / folders[0]
        below = [split for split in SPLITS if (inner / split).is_dir()]
        if below:
            raise UserError(
                f"{root} holds nothing but {folders[0]}, which has {' and '.join(below)} in it; "
                f"give {inner}"
            )


def _find_numbered(root: Path, manifest: Manifest | None, jobs: int | None) -> Source | None:
    """Shards, which number their classes; None when there are none, or a tree of classes."""
    if subfolders(root / "train"):
        return None
    source = find_parquet(root) or find_webdataset(root, jobs)
    if source is None:
        return None
    manifest = manifest or next((m for m in map(load, names()) if _same_counts(source, m)), None)
    if manifest is None:
        return source
    if len(manifest.classes) != len(source.classes):
        raise UserError(
            f"{root} has {len(source.classes)} classes, {manifest.title} has "
            f"{len(manifest.classes)}; give another --manifest, or none"
        )
    return dataclasses.replace(
        source,
        classes=tuple(known.folder for known in manifest.classes),
        names=tuple(known.name for known in manifest.classes),
        choices={"manifest": manifest.name},
    )


def _same_counts(source: Source, manifest: Manifest) -> bool:
    """Whether train has the manifest's images in every class: no other data set will."""
    train = source.splits.get("train")
    counts = train.counts(len(source.classes)) if train else None
    known = [entry.images.get("train") for entry in manifest.classes]
    return counts is not None and counts.tolist() == known
