"""Results of the paper and of write-ups, as the recipes' heads tell them with their sources.

Errors in per cent. A run stands beside those of its own classes, whatever its recipe is.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Collection
from importlib import resources

IMAGENET = "ILSVRC-2012 validation"


@dataclasses.dataclass(frozen=True)
class Published:
    """One row of a table of results."""

    recipe: str  # the one that trains what was published
    what: str
    data: str
    views: int | None  # None: not told
    top1: float
    top5: float | None


PAPER = Published("paper", "the paper, one network", IMAGENET, 10, 40.7, 18.2)
RESULTS = {  # by the manifest that has the classes
    "imagenet-1k": (
        PAPER,
        Published("authors-2012", "the authors' lab log", IMAGENET, 10, 40.66, 18.21),
        Published("steplr-100", "a write-up, 100 epochs", IMAGENET, 5, 39.93, 17.73),
        Published("steplr-100", "the same", "ILSVRC-2012 training", None, 27.67, 8.39),
        Published("plain-120", "a write-up, 120 epochs", IMAGENET, 10, 41.7, 19.3),
        Published("plain-120", "the same, 90 epochs", IMAGENET, 10, 46.7, 22.7),
    ),
    "caltech-256": (
        Published(
            "caltech256-bn", "a write-up, 200 epochs", "Caltech-256, a fifth", None, 40.7, None
        ),
        Published(
            "caltech256-bn", "the same, 100 epochs", "Caltech-256, a fifth", None, 53.5, None
        ),
    ),
    "tiny-imagenet-200": (
        Published(
            "tiny-imagenet", "a write-up", "Tiny ImageNet 200 validation", None, 68.25, 41.24
        ),
    ),
}


def of_classes(wnids: Collection[str]) -> tuple[Published, ...]:
    """What is published of the data set that has just these classes; () where none is known."""
    found = (results for name, results in RESULTS.items() if _has_just(name, set(wnids)))
    return next(found, ())


def _has_just(manifest: str, wnids: set[str]) -> bool:
    """Whether these are all of a manifest's classes; users may leave out the optional ones."""
    text = (resources.files("data_manifests") / f"{manifest}.toml").read_text("utf-8")
    classes = tomllib.loads(text)["classes"]
    wanted = {wnid for wnid, known in classes.items() if not known.get("optional", False)}
    return wanted <= wnids <= set(classes)
