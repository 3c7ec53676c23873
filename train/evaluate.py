"""Evaluation by one, five or ten views (paper, section 4.1): each image once, softmax averaged.

The ten views are the centre crop, the four corner crops, and their mirror images; the five are
those without the mirror images. The mean image is subtracted as in training: at each crop's own
place and mirrored with it (paper), or its centre crop from every view (the authors' code,
convdata.py, subtract_mean after __trim_borders). There is no noise and nothing is divided: the
authors' divisor is of training images only (convdata.py, CroppedImageNetDP.get_next_batch, where
it says `not self.test`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from train.augment_device import IMAGE_SIDE, to_side
from train.checkpoint import TrainedOn
from train.loader import Batch
from train.recipe import Mean


@dataclasses.dataclass(frozen=True)
class Score:
    """Over all samples; errors are fractions."""

    samples: int
    loss: float  # mean of -log(probability of the label), probabilities averaged over the views
    top1_error: float
    top5_error: float


def mean_image(trained_on: TrainedOn, device: torch.device) -> torch.Tensor:
    """The mean image that views are without, float32 [256,256,3]: resized, if need be, as they."""
    return to_side(trained_on.mean_image[None], IMAGE_SIDE)[0].to(device)


def cut_views(
    images_BSSC: torch.Tensor,
    mean_SSC: torch.Tensor,
    views: int,
    mean: Mean = "matched",
    crop: int = 224,  # pixels, paper section 4.1
) -> Iterator[torch.Tensor]:
    """Images [B,S,S,3] and float32 [S,S,3] to 1, 5 or 10 float32 [B,3,crop,crop], one at a time.

    The centre crop comes first; with ten views its mirror image, and the four corners, with ten
    views each with theirs, follow.
    """
    margin = images_BSSC.shape[1] - crop
    centre = margin // 2, margin // 2
    corners = [(0, 0), (0, margin), (margin, 0), (margin, margin)]
    for top, left in [centre, *(corners if views > 1 else [])]:
        crop_BHWC = images_BSSC[:, top : top + crop, left : left + crop].float()
        mean_top, mean_left = centre if mean == "centre" else (top, left)
        mean_HWC = mean_SSC[mean_top : mean_top + crop, mean_left : mean_left + crop]
        yield (crop_BHWC - mean_HWC).permute(0, 3, 1, 2)  # NHWC to NCHW
        if views == 10:
            mirrored_HWC = mean_HWC if mean == "centre" else mean_HWC.flip(1)
            yield (crop_BHWC.flip(2) - mirrored_HWC).permute(0, 3, 1, 2)


@torch.inference_mode()
def probabilities(
    network: nn.Module,
    images_BSSC: torch.Tensor,
    mean_SSC: torch.Tensor,
    views: int,
    mean: Mean = "matched",
    crop: int = 224,
) -> dict[int, torch.Tensor]:
    """Softmax outputs, float32 [B,classes], by number of views: 1, and 5 or 10 where asked for.

    Images of another side than the mean image are resized to its side first. `network` is in
    evaluation mode; all are on one device.
    """
    images_BSSC = to_side(images_BSSC, len(mean_SSC))
    softmax = (
        network(view).float().softmax(dim=1)
        for view in cut_views(images_BSSC, mean_SSC, views, mean, crop)
    )
    centre = next(softmax)
    total = sum(softmax, start=centre)
    return {1: centre} | ({views: total / views} if views > 1 else {})


def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    mean_SSC: torch.Tensor,
    views: int,
    mean: Mean = "matched",
    crop: int = 224,
) -> dict[int, Score]:
    """Score every batch; returns a score for the centre view and for the 5 or 10 asked for.

    mean: which part of the mean image a view is without, crop: a view's side, as in training.
    """
    device = mean_SSC.device
    was_training = network.training
    network.eval()
    totals: dict[int, torch.Tensor] = {}
    samples = 0
    for batch in batches:
        labels = batch.labels.to(device)
        samples += len(labels)
        for count, softmax in probabilities(
            network, batch.images.to(device), mean_SSC, views, mean, crop
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
