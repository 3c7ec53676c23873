"""Centre and ten-view evaluation (paper, section 4.1): each image once, softmax averaged.

The ten views are the four corner crops, the centre crop, and their mirror images; the mean image
is subtracted at each crop's own place, as in training, and mirrored with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from train.loader import Batch
from train.network import INPUT_SIDE


@dataclasses.dataclass(frozen=True)
class Score:
    """Over all samples; errors are fractions."""

    samples: int
    loss: float  # mean of -log(probability of the label), probabilities averaged over the views
    top1_error: float
    top5_error: float


def cut_views(
    images_BSSC: torch.Tensor, mean_SSC: torch.Tensor, views: int
) -> Iterator[torch.Tensor]:
    """uint8 [B,S,S,3] and float32 [S,S,3] to one or ten float32 [B,3,224,224], one at a time.

    The centre crop comes first; with ten views its mirror image, and the four corners each with
    theirs, follow.
    """
    margin = images_BSSC.shape[1] - INPUT_SIDE
    places = [(margin // 2, margin // 2)]
    if views == 10:
        places += [(0, 0), (0, margin), (margin, 0), (margin, margin)]
    for top, left in places:
        rows, columns = slice(top, top + INPUT_SIDE), slice(left, left + INPUT_SIDE)
        crop_BHWC = images_BSSC[:, rows, columns].float() - mean_SSC[rows, columns]
        crop_BCHW = crop_BHWC.permute(0, 3, 1, 2)
        yield crop_BCHW
        if views == 10:
            yield crop_BCHW.flip(3)


@torch.inference_mode()
def probabilities(
    network: nn.Module, images_BSSC: torch.Tensor, mean_SSC: torch.Tensor, views: int
) -> dict[int, torch.Tensor]:
    """Softmax outputs, float32 [B,classes], by number of views: 1, and 10 where asked for.

    `network` is in evaluation mode; all are on one device.
    """
    softmax = (
        network(view).float().softmax(dim=1) for view in cut_views(images_BSSC, mean_SSC, views)
    )
    centre = next(softmax)
    total = sum(softmax, start=centre)
    return {1: centre} | ({10: total / 10} if views == 10 else {})


def evaluate(
    network: nn.Module, batches: Iterable[Batch], mean_SSC: torch.Tensor, views: int
) -> dict[int, Score]:
    """Score every batch; returns a score for the centre view and, with ten views, for those too."""
    device = mean_SSC.device
    was_training = network.training
    network.eval()
    totals: dict[int, torch.Tensor] = {}
    samples = 0
    for batch in batches:
        labels = batch.labels.to(device)
        samples += len(labels)
        for count, softmax in probabilities(
            network, batch.images.to(device), mean_SSC, views
        ).items():
            nll = (
                -softmax.gather(1, labels[:, None])
                .clamp_min(torch.finfo(torch.float32).tiny)
                .log()
                .sum()
            )
            sums = torch.stack([nll, *wrong(softmax, labels)]).cpu().double()
            totals[count] = totals.get(count, 0) + sums
    network.train(was_training)
    return {count: Score(samples, *(sums / samples).tolist()) for count, sums in totals.items()}


def wrong(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many labels are not the best, and not among the five best, of float [B,classes]."""
    best = scores.topk(min(5, scores.shape[1]), dim=1).indices
    hits = best == labels[:, None]
    top1, top5 = hits[:, 0].sum(), hits.sum()
    return len(labels) - top1, len(labels) - top5
