"""Evaluation by one, five or ten views (paper, section 4.1): each image once, softmax averaged.

The ten views are the centre crop, the four corner crops, and their mirror images; the five, those
without the mirror images, are a part of them. The mean image is subtracted as in training: at each
crop's own place and mirrored with it (paper), or its centre crop from every view (the authors'
code, convdata.py, subtract_mean after __trim_borders). There is no noise and nothing is divided:
the authors' divisor is of training images only (convdata.py, CroppedImageNetDP.get_next_batch,
where it says `not self.test`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from train.augment_device import crops_at, places_torch, to_side
from train.augmentation import mean_picture
from train.checkpoint import TrainedOn
from train.loader import Batch
from train.processes import ALONE, Processes
from train.recipe import Mean, Recipe

VIEWS = (1, 5, 10)


class Judged(NamedTuple):
    """What became of each sample, [N] in the order of the batches, by one number of views."""

    labels: torch.Tensor  # int64
    best: torch.Tensor  # int64, the most probable class
    top5_wrong: torch.Tensor  # bool: the label is not among the five most probable classes
    loss: torch.Tensor  # float32, -log(probability of the label)

    @property
    def top1_wrong(self) -> torch.Tensor:
        return self.best != self.labels


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

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of views that can be judged by: 1, and 5 and 10 as far as they are cut."""
        return tuple(count for count in VIEWS if count <= self.count)


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
    """Softmax outputs averaged over views, float32 [B,classes], by their number: views.counts.

    Images of another side than the mean image are resized to its side first. `network` is in
    evaluation mode; all are on one device.
    """
    images_BSSC = to_side(images_BSSC, len(views.mean_SSC))
    totals: dict[int, torch.Tensor] = {}
    for place, view in enumerate(cut_views(images_BSSC, views, samples_B)):
        softmax = network(view).float().softmax(dim=1)
        for count in views.counts:
            if place % (views.count // count) == 0:  # the centre; of ten, every second one
                totals[count] = totals[count] + softmax if count in totals else softmax
    return {count: total / count for count, total in totals.items()}


def judge(network: nn.Module, batches: Iterable[Batch], views: Views) -> dict[int, Judged]:
    """Every sample of this process's batches, once, by each of views.counts; on the CPU."""
    device = views.mean_SSC.device
    was_training = network.training
    network.eval()
    none = torch.empty(0, 1, device=device), torch.empty(0, dtype=torch.int64, device=device)
    parts = {count: [_judged(*none)] for count in views.counts}
    for batch in batches:
        labels = batch.labels.to(device)
        if len(labels) == 0:  # of a last batch with fewer samples than processes
            continue
        found = probabilities(network, batch.images.to(device), views, batch.samples.to(device))
        for count, softmax in found.items():
            parts[count].append(_judged(softmax, labels))
    network.train(was_training)
    return {
        count: Judged(*(torch.cat(column).cpu() for column in zip(*each, strict=True)))
        for count, each in parts.items()
    }


def _judged(softmax: torch.Tensor, labels: torch.Tensor) -> Judged:
    """Of one batch, float32 [B,classes] and int64 [B]; what it gives is the caller's to keep."""
    best = _five_best(softmax)
    likely = softmax.gather(1, labels[:, None])[:, 0].clamp_min(torch.finfo(torch.float32).tiny)
    return Judged(
        labels=labels.clone(),  # the loader's memory is used again
        best=best[:, 0],
        top5_wrong=(best != labels[:, None]).all(dim=1),
        loss=-likely.log(),
    )


def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    views: Views,
    processes: Processes = ALONE,
) -> dict[int, Score]:
    """Score every batch of all processes, by each of views.counts."""
    judged = judge(network, batches, views)
    return {count: score(each, processes) for count, each in judged.items()}


def score(judged: Judged, processes: Processes = ALONE) -> Score:
    """Over the samples of all processes."""
    columns = (judged.loss, judged.top1_wrong, judged.top5_wrong)
    sums = torch.stack([column.double().sum() for column in columns])
    sums = processes.add_up(torch.cat([sums, torch.tensor([float(len(judged.labels))])]))
    return Score(int(sums[3]), *(sums[:3] / sums[3]).tolist())


def wrong(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many labels are not the best, and not among the five best, of float [B,classes]."""
    hits = _five_best(scores) == labels[:, None]
    top1, top5 = hits[:, 0].sum(), hits.sum()
    return len(labels) - top1, len(labels) - top5


def _five_best(scores: torch.Tensor) -> torch.Tensor:
    """The classes, best first: int64 [B,5], or as many as there are."""
    return scores.topk(min(5, scores.shape[1]), dim=1).indices
