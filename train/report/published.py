"""Results of the paper and of write-ups, as the recipes' heads tell them with their sources.

Errors in per cent. `classes`: of the data; a run on other data is not to be measured by them.
"""

from __future__ import annotations

import dataclasses

from train.checkpoint import Checkpoint
from train.pretrained import imagenet_classes

PAPER = "paper"
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


RESULTS = (
    Published(PAPER, "the paper, one network", IMAGENET, 10, 40.7, 18.2),
    Published("authors-2012", "the authors' lab log", IMAGENET, 10, 40.66, 18.21),
    Published("steplr-100", "a write-up, 100 epochs", IMAGENET, 5, 39.93, 17.73),
    Published("steplr-100", "the same, training data", "ILSVRC-2012 training", None, 27.67, 8.39),
    Published("plain-120", "a write-up, 120 epochs", IMAGENET, 10, 41.7, 19.3),
    Published("plain-120", "the same, 90 epochs", IMAGENET, 10, 46.7, 22.7),
    Published("caltech256-bn", "a write-up, 200 epochs", "Caltech-256, a fifth", None, 40.7, None),
    Published("caltech256-bn", "the same, 100 epochs", "Caltech-256, a fifth", None, 53.5, None),
    Published("tiny-imagenet", "a write-up", "Tiny ImageNet 200 validation", None, 68.25, 41.24),
)


def beside(recipe_name: str) -> list[Published]:
    """The paper's result and those of a recipe."""
    return [result for result in RESULTS if result.recipe in (PAPER, recipe_name)]


def is_imagenet(checkpoint: Checkpoint) -> bool:
    """Whether a run's classes are those of ILSVRC-2012."""
    return checkpoint.data.wnids == imagenet_classes()[0]
