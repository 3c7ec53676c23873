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

from train.augment import mean_picture
from train.augment_device import crops_at, places_torch, to_side
from train.checkpoint import TrainedOn
from train.loader import Batch
from train.processes import ALONE, Processes
from train.recipe import Mean, Recipe


@dataclasses.dataclass(frozen=True)
class Score:
    """Over all samples; errors are fractions."""

    samples: int
    loss: float  # mean of -log(probability of the label), probabilities averaged over the views
    top1_error: float
    top5_error: float


@dataclasses.dataclass(frozen=True)
class Views:
    """How an image is seen: 1, 5 or 10 crops, less the mean, as in training."""

    mean_SSC: torch.Tensor  # float32; images are brought to its side
    count: int = 1
    mean: Mean = "matched"  # "centre": its centre crop is taken off every view, mirrored or not
    crop: int = 224  # pixels, paper section 4.1
    divisor: float = 1.0  # of everything
    random: int | None = None  # one view: the seed that its place is drawn from, not the centre


def views_of(recipe: Recipe, data: TrainedOn, device: torch.device, count: int) -> Views:
    """How a recipe's network is judged. One view is the recipe's; five and ten have their places.

    The mean image is resized, if need be, as the images are.
    """
    mean_SSC = torch.from_numpy(mean_picture(recipe.mean, data.mean_image.numpy()))
    return Views(
        mean_SSC=to_side(mean_SSC[None], recipe.image_side)[0].to(device),
        count=count,
        mean=recipe.mean,
        crop=recipe.crop,
        divisor=recipe.pixel_divisor,
        random=recipe.seed if count == 1 and recipe.test_crop == "random" else None,
    )


def cut_views(
    images_BSSC: torch.Tensor, views: Views, samples_B: torch.Tensor | None = None
) -> Iterator[torch.Tensor]:
    """Images [B,S,S,3] to 1, 5 or 10 float32 [B,3,crop,crop], one at a time.

    The centre crop comes first; with ten views its mirror image, and the four corners, with ten
    views each with theirs, follow. samples_B: the images' indices, for a view at random.
    """
    crop, mean_SSC = views.crop, views.mean_SSC
    margin = images_BSSC.shape[1] - crop
    centre = margin // 2, margin // 2
    corners = [(0, 0), (0, margin), (margin, 0), (margin, margin)]
    if views.random is not None:
        if samples_B is None:
            raise ValueError("a view at random needs `samples`, the data set indices [B]")
        top, left = places_torch(views.random, samples_B, margin + 1)
        own_BHWC = crops_at(images_BSSC, top, left, crop)
        everywhere = mean_SSC.expand(len(images_BSSC), *mean_SSC.shape)
        at = (torch.full_like(top, margin // 2),) * 2 if views.mean == "centre" else (top, left)
        view_BHWC = own_BHWC.float() - crops_at(everywhere, *at, crop)
        yield view_BHWC.permute(0, 3, 1, 2) / views.divisor
        return
    for y, x in [centre, *(corners if views.count > 1 else [])]:
        crop_BHWC = images_BSSC[:, y : y + crop, x : x + crop].float()
        mean_top, mean_left = centre if views.mean == "centre" else (y, x)
        mean_HWC = mean_SSC[mean_top : mean_top + crop, mean_left : mean_left + crop]
        yield (crop_BHWC - mean_HWC).permute(0, 3, 1, 2) / views.divisor  # NHWC to NCHW
        if views.count == 10:
            mirrored_HWC = mean_HWC if views.mean == "centre" else mean_HWC.flip(1)
            yield (crop_BHWC.flip(2) - mirrored_HWC).permute(0, 3, 1, 2) / views.divisor


@torch.inference_mode()
def probabilities(
    network: nn.Module,
    images_BSSC: torch.Tensor,
    views: Views,
    samples_B: torch.Tensor | None = None,
) -> dict[int, torch.Tensor]:
    """Softmax outputs, float32 [B,classes], by number of views: 1, and 5 or 10 where asked for.

    Images of another side than the mean image are resized to its side first. `network` is in
    evaluation mode; all are on one device.
    """
    images_BSSC = to_side(images_BSSC, len(views.mean_SSC))
    softmax = (
        network(view).float().softmax(dim=1) for view in cut_views(images_BSSC, views, samples_B)
    )
    centre = next(softmax)
    total = sum(softmax, start=centre)
    return {1: centre} | ({views.count: total / views.count} if views.count > 1 else {})


def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    views: Views,
    processes: Processes = ALONE,
) -> dict[int, Score]:
    """Score every batch of all processes, by the first view and by the 5 or 10 asked for."""
    device = views.mean_SSC.device
    was_training = network.training
    network.eval()
    counts = [1, views.count] if views.count > 1 else [1]
    totals = torch.zeros(len(counts), 4, dtype=torch.float64)  # loss, misses, misses, samples
    for batch in batches:
        labels = batch.labels.to(device)
        if len(labels) == 0:  # of a last batch with fewer samples than processes
            continue
        found = probabilities(network, batch.images.to(device), views, batch.samples.to(device))
        for row, softmax in enumerate(found.values()):
            nll = (
                -softmax.gather(1, labels[:, None])
                .clamp_min(torch.finfo(torch.float32).tiny)
                .log()
                .sum()
            )
            sums = torch.stack([nll, *wrong(softmax, labels)]).cpu().double()
            totals[row] += torch.cat([sums, torch.tensor([len(labels)])])
    network.train(was_training)
    processes.add_up(totals)
    return {
        count: Score(int(row[3]), *(row[:3] / row[3]).tolist())
        for count, row in zip(counts, totals, strict=True)
    }


def wrong(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many labels are not the best, and not among the five best, of float [B,classes]."""
    best = scores.topk(min(5, scores.shape[1]), dim=1).indices
    hits = best == labels[:, None]
    top1, top5 = hits[:, 0].sum(), hits.sum()
    return len(labels) - top1, len(labels) - top5
