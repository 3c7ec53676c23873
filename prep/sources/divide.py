"""A validation split where the source has none: some pictures of each class, drawn from a seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prep.program import UserError
from prep.sources.listing import SPLITS, Source, Split


def with_validation(
    source: Source, fraction: float, seed: int, wanted: Sequence[str] = SPLITS
) -> Source:
    """`source` with `fraction` of each training class as its split `val`, at least one picture.

    Which ones depends on names and labels alone, not on the order in which the source has them.
    The splits that are not `wanted` are dropped only then: all of them have to be in `source`.
    Raises UserError when it has a validation split, or its pictures are not known before reading,
    or a class has a single picture.
    """
    if "val" in source.splits:
        raise UserError(
            f"{source.root} has a validation split; leave out --val-fraction {fraction:g}"
        )
    split = source.splits.get("train")
    if split is None or split.of_archives:
        raise UserError(
            f"{source.root} has no list of training pictures to divide; leave out --val-fraction"
        )
    chosen = _chosen(split, source, fraction, seed)
    splits = {"train": _taken(split, ~chosen), "val": _taken(split, chosen)}
    others = {name: other for name, other in source.splits.items() if name != "train"}
    division = f"{fraction:g} of train with seed {seed}"
    divided = dataclasses.replace(
        source, splits=splits | others, choices={**source.choices, "val_fraction": division}
    )
    return divided.keep(wanted)


def _taken(split: Split, wanted: npt.NDArray[np.bool_]) -> Split:
    """The pictures `wanted` [N]; units end where they did, for the sake of parquet's row groups."""
    places = np.flatnonzero(wanted)
    bounds = split.bounds
    if bounds is not None:
        bounds = np.unique(np.searchsorted(places, bounds))
    return dataclasses.replace(split, listing=split.listing.take(places), bounds=bounds)


def _chosen(split: Split, source: Source, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """True for the pictures that are to validate, bool [N]."""
    labels = split.listing.labels
    names = split.listing.names
    chosen = np.zeros(len(labels), np.bool_)
    order = np.argsort(labels, kind="stable")
    edges = np.searchsorted(labels[order], np.arange(len(source.classes) + 1))
    for label, name in enumerate(source.classes):
        of_class = order[edges[label] : edges[label + 1]]
        if not len(of_class):
            continue
        if len(of_class) == 1:
            raise UserError(
                f"class {name} has one picture, which cannot be in train and val; add pictures or "
                "leave out --val-fraction"
            )
        by_name = sorted(of_class.tolist(), key=names.__getitem__)
        count = min(max(round(fraction * len(by_name)), 1), len(by_name) - 1)
        drawn = np.random.default_rng([seed, label]).permutation(len(by_name))[:count]
        chosen[np.array(by_name)[drawn]] = True
    return chosen
