"""Data sets whose folders need more than class folders to be understood.

Tiny ImageNet 200: train/<wnid>/images/, val/images/ with val/val_annotations.txt, test/images/;
without train/, wnids.txt tells the classes.
Caltech-256: 001.ak47/ .. 257.clutter/, in 256_ObjectCategories/ or not.
ImageNet as Kaggle gives it: ILSVRC/Data/CLS-LOC/{train,val,test}/ and LOC_val_solution.csv.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from prep.files import read_regular
from prep.handover import UNLABELLED
from prep.program import UserError
from prep.sources.folders import (
    LabelOf,
    Lister,
    check_classes,
    checked_classes,
    class_folders,
    constant,
)
from prep.sources.listing import SPLITS, Source
from prep.sources.walk import subfolders

TINY_WNIDS = "wnids.txt"
CALTECH_FOLDER = "256_ObjectCategories"
CLUTTER = "257.clutter"
KAGGLE_DATA = "ILSVRC/Data/CLS-LOC"
KAGGLE_SOLUTION = "LOC_val_solution.csv"
KAGGLE_NAMES = "LOC_synset_mapping.txt"
_TINY_ANNOTATIONS = re.compile(r"val_annotations\.txt|n\d+_boxes\.txt", re.ASCII)
_CALTECH_CLASS = re.compile(r"\d{3}\.[\w-]+", re.ASCII)


def find_tiny_imagenet(root: Path, wanted: Sequence[str]) -> Source | None:
    """Recognised by val/val_annotations.txt: `<file><tab><wnid><tab>...` a line."""
    path = root / "val" / "val_annotations.txt"
    if not path.is_file():
        return None
    pairs = (line.split("\t") for line in _text(path).splitlines() if line)
    wnids = {fields[0]: fields[1] for fields in pairs if len(fields) > 1}
    known = [] if subfolders(root / "train") else _tiny_classes(root)
    source = class_folders(
        root,
        wanted,
        lambda classes: label_by_file(wnids, classes, path),
        known,
        annotations=_TINY_ANNOTATIONS,
    )
    return dataclasses.replace(
        source, kind="Tiny ImageNet 200, as distributed", data_set="tiny-imagenet-200"
    )


def _tiny_classes(root: Path) -> list[str]:
    """The lines of wnids.txt, or val's folders where its pictures were sorted into some."""
    path = root / TINY_WNIDS
    if path.is_file():
        return _text(path).split()
    if (root / "val" / "images").is_dir():
        raise UserError(
            f"{root} has neither train/<class>/ nor {TINY_WNIDS}, so nothing tells its classes; "
            f"put {TINY_WNIDS} of the archive there"
        )
    return subfolders(root / "val")


def find_caltech(root: Path, clutter: bool) -> Source | None:
    """Recognised by its folders' names; `clutter` keeps the class of pictures of nothing."""
    folder = root / CALTECH_FOLDER if (root / CALTECH_FOLDER).is_dir() else root
    found = set(subfolders(folder))
    if len(found) < 2 or not all(_CALTECH_CLASS.fullmatch(name) for name in found):
        return None
    classes = checked_classes(root, found if clutter else found - {CLUTTER})
    lister = Lister(root)
    prefix = f"{CALTECH_FOLDER}/" if folder != root else ""
    of_folder = {prefix + name: constant(label) for label, name in enumerate(classes)}
    splits = {"train": lister.split("train", of_folder)}
    check_classes(root, classes, splits)
    names = tuple(name[4:].replace("-", " ") for name in classes)
    return Source(
        root,
        "Caltech-256, as distributed",
        classes,
        names,
        splits,
        lister.skipped,
        choices={"clutter": "given"} if CLUTTER in classes else {},
        data_set="caltech-256",
    )


def find_kaggle(root: Path, wanted: Sequence[str]) -> Source | None:
    """Recognised by ILSVRC/Data/CLS-LOC; val is flat, its labels are in LOC_val_solution.csv."""
    data = root / KAGGLE_DATA
    if not data.is_dir():
        return None
    classes = checked_classes(root, set(subfolders(data / "train")))
    lister = Lister(root)
    splits = {}
    for split in [name for name in SPLITS if name in wanted and (data / name).is_dir()]:
        if split == "train":
            of_folder = {
                f"{KAGGLE_DATA}/train/{name}": constant(label) for label, name in enumerate(classes)
            }
        else:
            label_of = _kaggle_labels(root, classes) if split == "val" else constant(UNLABELLED)
            of_folder = {f"{KAGGLE_DATA}/{split}": label_of}
        splits[split] = lister.split(split, of_folder)
    check_classes(root, classes, splits)
    words = {}
    if (root / KAGGLE_NAMES).is_file():
        pairs = (line.split(" ", 1) for line in _text(root / KAGGLE_NAMES).splitlines())
        words = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
    names = tuple(words.get(name, name) for name in classes)
    return Source(
        root,
        "ImageNet, Kaggle's tree",
        classes,
        names,
        splits,
        lister.skipped,
        data_set="imagenet-1k",
    )


def _kaggle_labels(root: Path, classes: tuple[str, ...]) -> LabelOf:
    """The first word of a row's PredictionString is the picture's wnid."""
    path = root / KAGGLE_SOLUTION
    if not path.is_file():
        raise UserError(
            f"{path} is missing, which holds the labels of the validation pictures; download it, "
            "or give --split train"
        )
    try:
        rows = list(csv.DictReader(_text(path).splitlines()))
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as CSV ({error}); download it again") from error
    if not rows or not {"ImageId", "PredictionString"} <= rows[0].keys():
        raise UserError(f"{path} has no columns ImageId and PredictionString; download it again")
    wnids = {
        f"{row['ImageId']}.JPEG": (row["PredictionString"] or "").split(" ")[0] for row in rows
    }
    return label_by_file(wnids, classes, path)


def label_by_file(wnids: Mapping[str, str], classes: tuple[str, ...], path: Path) -> LabelOf:
    """The label of a picture by its file's name; `path`, which says so, is named in errors."""
    rank = {name: label for label, name in enumerate(classes)}

    def label_of(file: str) -> int | str:
        wnid = wnids.get(file)
        if wnid is None:
            raise UserError(
                f"{path} says nothing of {file}; get it again, or take the picture away"
            )
        return rank.get(wnid, wnid)

    return label_of


def _text(path: Path) -> str:
    try:
        return read_regular(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); get it again") from error
