"""One pass over the validation data: the figures of `train eval`, by class and by confusion.

Predictions are of the largest number of views that is asked for. No features or probabilities are
kept for the whole data, so memory does not grow with it but for a few bytes a sample.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from train import by_class
from train import evaluate as evaluation
from train.dataset import Dataset
from train.evaluate import Judged, Score, Views
from train.loader import evaluation_batches
from train.networks.layers import AlexNet
from train.report.data import Pixels, read_pictures
from train.screen import Screen

BATCH = 128  # images, as `train eval` by itself
PAIRS = 8  # of confused classes
CONFUSED, TYPICAL = 3, 2  # pictures of a pair: of one class taken for the other, and of that other
MOST_PROBABLE = 5  # classes of a prediction (paper, figure 4)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Of a whole data set."""

    scores: dict[int, Score]  # by number of views
    judged: Judged  # by the most of them
    seen: Views


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One validation image and its most probable classes, best first."""

    sample: int
    pixels: Pixels
    label: int
    best: list[tuple[int, float]]  # label, probability


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Samples of one class for which another was the most probable."""

    true: int
    predicted: int
    count: int
    of: int  # samples of the true class
    confused: list[Pixels]
    typical: list[Pixels]  # samples of the predicted class


def judge(
    network: AlexNet, dataset: Dataset, seen: Views, threads: int, screen: Screen
) -> Judgement:
    """`network` is in evaluation mode on the views' device."""
    batches = evaluation_batches(dataset, BATCH, threads, seen.mean_SSC.device)
    followed = screen.follow("validation", batches.sequential(), len(batches))
    judged = evaluation.judge(network, followed, seen)
    scores = {count: evaluation.score(judged[count]) for count in sorted({1, seen.count})}
    return Judgement(scores, judged[seen.count], seen)


def predictions(
    network: AlexNet, dataset: Dataset, samples: Sequence[int], seen: Views
) -> list[Prediction]:
    device = seen.mean_SSC.device
    pictures = read_pictures(dataset, samples)
    found = []
    for sample, pixels in zip(samples, pictures, strict=True):  # one by one: ten views are many
        softmax = evaluation.probabilities(
            network,
            torch.tensor(pixels, device=device)[None],
            seen,
            torch.tensor([sample], device=device),
        )[seen.count][0]
        best = softmax.topk(min(MOST_PROBABLE, len(softmax)))
        ranked = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        found.append(Prediction(sample, pixels, int(dataset.labels[sample]), ranked))
    return found


def confusions(judged: Judged, dataset: Dataset) -> list[Confusion]:
    """The most frequent, with pictures."""
    counts = torch.bincount(judged.labels, minlength=len(dataset.card.classes)).tolist()
    found = []
    for true, predicted, count in by_class.confusions(judged)[:PAIRS]:
        mistaken = (judged.labels == true) & (judged.best == predicted)
        others = judged.labels == predicted
        found.append(
            Confusion(
                true,
                predicted,
                count,
                counts[true],
                read_pictures(dataset, _first(mistaken, CONFUSED)),
                read_pictures(dataset, _first(others, TYPICAL)),
            )
        )
    return found


def _first(chosen: torch.Tensor, count: int) -> list[int]:
    """Of bool [N], the first samples for which it holds."""
    return [int(sample) for sample in chosen.nonzero()[:count, 0]]
