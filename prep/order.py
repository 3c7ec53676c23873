"""The order of a beton's samples on disk, which decides what sequential reading sees.

- class: all of the first class, then all of the second, and so on; within a class by name.
- shuffled: a permutation drawn once from a seed. The authors of Krizhevsky et al. 2012 shuffled
  once on disk and then read in that order, epoch after epoch.

FFCV's SEQUENTIAL order of a class-ordered file gives batches of one class, which nothing can be
learned from; of a shuffled file it gives mixed batches, the same ones each epoch. Its QUASI_RANDOM
order draws from 2 x batch size open pages of 8 MiB (270 JPEGs of 30 KB): pages of a class-ordered
file hold one or two classes, so that a batch has the classes of the open pages only, and the last
batches of an epoch, when few pages are left, have very few; pages of a shuffled file are each a
sample of the whole. RANDOM order, which `train` uses, does not depend on the order on disk.

The permutation is the stable argsort of the raw 64-bit numbers of NumPy's PCG64(seed), which NumPy
promises to keep; Generator.permutation it may change (NEP 19).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from prep.handover import UNLABELLED, Card

CLASS, SHUFFLED = "class", "shuffled"


@dataclasses.dataclass(frozen=True)
class Order:
    """How the samples of a beton follow one another."""

    order: str = CLASS
    seed: int | None = None  # of SHUFFLED

    def of(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which sample comes first, second, ...; labels, result: [N]."""
        by_class = np.argsort(labels, kind="stable")
        if self.order == CLASS:
            return by_class
        numbers = np.random.PCG64(self.seed).random_raw(len(labels))
        return by_class[np.argsort(numbers, kind="stable")]


BY_CLASS = Order()


def labels_of(card: Card) -> npt.NDArray[np.int64]:
    """The label of every sample [N] of the beton that this card describes."""
    if card.labelled:
        counts = [entry.samples for entry in card.classes]
        labels = np.repeat(np.arange(len(counts)), counts)
    else:
        labels = np.full(card.samples, UNLABELLED, np.int64)
    return labels[Order(card.order, card.seed).of(labels)]
