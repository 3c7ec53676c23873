"""Views, averaged probabilities and errors, against plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from train.augment import draw
from train.augment_device import to_side
from train.checkpoint import TrainedOn
from train.dataset import open_dataset
from train.evaluate import (
    Views,
    cut_views,
    evaluate,
    judge,
    probabilities,
    score,
    views_of,
    wrong,
)
from train.loader import Batch, Batches
from train.networks.paper import PaperNet
from train.recipe import Mean, load_recipe

SIDE, CROP = 256, 224
WEIGHTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the classes, so that mirroring makes no ties
# View: row and column where its crop starts, section 4.1's four corners and centre.
PLACES = {0: (16, 16), 1: (0, 0), 2: (0, 32), 3: (32, 0), 4: (32, 32)}


def noise(count: int, side: int = SIDE, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def mean() -> npt.NDArray[np.float32]:
    """A mean image that differs at each place and channel."""
    return np.random.default_rng(5).uniform(0, 255, (SIDE, SIDE, 3)).astype(np.float32)


def batches_of(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], batch: int
) -> Iterator[Batch]:
    for start in range(0, len(images), batch):
        part = np.s_[start : start + batch]
        samples = torch.arange(len(images))[part]
        yield Batch(torch.from_numpy(images[part]), torch.from_numpy(labels[part]), samples)


class _Peaks(nn.Module):
    """Logits within 30 from the means of six blocks of a view, so that every view gives others."""

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        blocks = nn.functional.adaptive_avg_pool2d(view[:, 0], (2, 3))
        return blocks.flatten(1) / (1 + blocks.flatten(1).abs() / 30) * torch.tensor(WEIGHTS)


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def peaks(view: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """_Peaks in NumPy, [B,224,224,3] to [B,6]; 3 does not divide 224, so its blocks overlap."""
    red = view[..., 0]
    columns = ((0, 75), (74, 150), (149, 224))
    rows = ((0, 112), (112, 224))
    blocks = [red[:, r0:r1, c0:c1].mean((1, 2)) for r0, r1 in rows for c0, c1 in columns]
    return np.stack(blocks, 1) / (1 + np.abs(np.stack(blocks, 1)) / 30) * WEIGHTS


def numpy_views(
    images: npt.NDArray[Any], mean: npt.NDArray[np.float32]
) -> list[npt.NDArray[np.float64]]:
    centred = images.astype(np.float64) - mean
    crops = [centred[:, top : top + CROP, left : left + CROP] for top, left in PLACES.values()]
    return [view for crop in crops for view in (crop, crop[:, :, ::-1])]


def test_ten_views_are_the_papers(mean: npt.NDArray[np.float32]) -> None:
    images = noise(3)
    cut = torch.stack([*cut_views(torch.from_numpy(images), Views(torch.from_numpy(mean), 10))])
    assert cut.shape == (10, 3, 3, CROP, CROP)
    assert cut.dtype == torch.float32
    for view, wanted in zip(cut, numpy_views(images, mean), strict=True):
        np.testing.assert_allclose(view.permute(0, 2, 3, 1), wanted, atol=1e-4)


def test_five_views_are_the_ten_without_mirror_images(mean: npt.NDArray[np.float32]) -> None:
    images, mean_image = torch.from_numpy(noise(2)), torch.from_numpy(mean)
    five, ten = (torch.stack([*cut_views(images, Views(mean_image, views))]) for views in (5, 10))
    assert torch.equal(five, ten[::2])


def test_the_authors_take_the_means_centre_off_after_mirroring(
    mean: npt.NDArray[np.float32],
) -> None:
    images = noise(3)
    cut = cut_views(torch.from_numpy(images), Views(torch.from_numpy(mean), 10, "centre"))
    pixels = numpy_views(images, np.zeros_like(mean))
    for view, wanted in zip(cut, pixels, strict=True):
        centred = wanted - mean[16:240, 16:240]
        np.testing.assert_allclose(view.permute(0, 2, 3, 1), centred, atol=1e-4)


@pytest.mark.parametrize("mean_at", ["matched", "centre"])
def test_views_of_another_crop(mean_at: Mean, mean: npt.NDArray[np.float32]) -> None:
    images = noise(2)
    cut = [
        *cut_views(torch.from_numpy(images), Views(torch.from_numpy(mean), 10, mean_at, crop=227))
    ]
    assert {view.shape for view in cut} == {(2, 3, 227, 227)}
    start = 14 if mean_at == "centre" else 29  # of the mean; of the last view's crop, 256 - 227
    means = mean[start : start + 227, start : start + 227]
    pixels = images[:, 29:, 29:].astype(np.float64)
    last = pixels[:, :, ::-1] - (means if mean_at == "centre" else means[:, ::-1])
    np.testing.assert_allclose(cut[-1].permute(0, 2, 3, 1), last, atol=1e-4)


def test_images_of_another_side_are_brought_to_the_mean_images(
    mean: npt.NDArray[np.float32],
) -> None:
    small, mean_image = torch.from_numpy(noise(4, side=64)), torch.from_numpy(mean)
    resized = to_side(small, SIDE)
    for views in (1, 5, 10):
        found = probabilities(_Peaks(), small, Views(mean_image, views))
        wanted = probabilities(_Peaks(), resized, Views(mean_image, views))
        assert list(found) == list(wanted)
        assert all(torch.equal(found[count], wanted[count]) for count in found)


def test_the_mean_reaches_the_views(mean: npt.NDArray[np.float32]) -> None:
    """Probabilities and scores by the authors' mean are those of their views."""
    images, labels = noise(4, seed=2), np.arange(4)
    tensors = torch.from_numpy(images), torch.from_numpy(mean)
    views = [
        _Peaks()(view).softmax(1) for view in cut_views(tensors[0], Views(tensors[1], 5, "centre"))
    ]
    found = probabilities(_Peaks(), tensors[0], Views(tensors[1], 5, "centre"))
    torch.testing.assert_close(found[5], torch.stack(views).mean(0))
    assert not torch.equal(found[5], probabilities(_Peaks(), tensors[0], Views(tensors[1], 5))[5])
    scores = evaluate(_Peaks(), batches_of(images, labels, 3), Views(tensors[1], 5, "centre"))
    loss = -found[5][torch.arange(4), torch.arange(4)].log().mean()
    assert scores[5].loss == pytest.approx(float(loss), rel=1e-5)


def test_views_are_divided(mean: npt.NDArray[np.float32]) -> None:
    images, mean_image = torch.from_numpy(noise(2)), torch.from_numpy(mean)
    for count in (1, 10):
        plain = torch.stack([*cut_views(images, Views(mean_image, count))])
        divided = torch.stack([*cut_views(images, Views(mean_image, count, divisor=127.5))])
        torch.testing.assert_close(divided, plain / 127.5)


@pytest.mark.parametrize("mean_at", ["matched", "centre"])
def test_a_view_at_random_is_where_training_has_its_crop(
    mean_at: Mean, mean: npt.NDArray[np.float32]
) -> None:
    images, samples = noise(8), torch.arange(3, 11)
    views = Views(torch.from_numpy(mean), 1, mean_at, crop=227, random=77)
    (view,) = cut_views(torch.from_numpy(images), views, samples)
    places = [draw(77, 0, int(sample), SIDE - 227 + 1, 1.0)[:2] for sample in samples]
    assert len(set(places)) > 4
    for found, image, (top, left) in zip(view, images, places, strict=True):
        y, x = (14, 14) if mean_at == "centre" else (top, left)
        wanted = image[top : top + 227, left : left + 227] - mean[y : y + 227, x : x + 227]
        np.testing.assert_array_equal(found.permute(1, 2, 0), wanted)


def test_a_view_at_random_needs_the_samples(mean: npt.NDArray[np.float32]) -> None:
    views = Views(torch.from_numpy(mean), random=1)
    with pytest.raises(ValueError, match="samples"):
        next(cut_views(torch.from_numpy(noise(1)), views))


def test_a_recipes_values_reach_the_views(mean: npt.NDArray[np.float32]) -> None:
    data = TrainedOn([], [], SIDE, 95, "turbo", "crop", "ignore", "", torch.from_numpy(mean))
    settings = ["mean=channels", "pixel_divisor=58", "test_crop=random", "seed=9", "crop=227"]
    recipe = load_recipe("paper", [*settings, "image_side=300"])
    one, ten = (views_of(recipe, data, torch.device("cpu"), count) for count in (1, 10))
    assert (one.random, ten.random) == (9, None)
    for views in (one, ten):
        assert (views.mean, views.crop, views.divisor) == ("channels", 227, 58.0)
        assert views.mean_SSC.shape == (300, 300, 3)
        torch.testing.assert_close(views.mean_SSC[17, 80], torch.from_numpy(mean).mean((0, 1)))


def test_the_single_view_is_the_centre(mean: npt.NDArray[np.float32]) -> None:
    images = torch.from_numpy(noise(2))
    one, ten = (
        torch.stack([*cut_views(images, Views(torch.from_numpy(mean), views))]) for views in (1, 10)
    )
    assert one.shape == (1, 2, 3, CROP, CROP)
    assert torch.equal(one[0], ten[0])


def test_an_odd_margin_and_no_margin() -> None:
    for side in (CROP, CROP + 1, CROP + 7):
        images = noise(1, side)
        mean = np.random.default_rng(1).uniform(0, 255, (side, side, 3)).astype(np.float32)
        cut = torch.stack([*cut_views(torch.from_numpy(images), Views(torch.from_numpy(mean), 10))])
        last = images[:, -CROP:, -CROP:].astype(np.float64) - mean[-CROP:, -CROP:]
        np.testing.assert_allclose(cut[8].permute(0, 2, 3, 1), last, atol=1e-4)
        start = (side - CROP) // 2
        window = np.s_[start : start + CROP, start : start + CROP]
        centre = images[0][window].astype(np.float64) - mean[window]
        np.testing.assert_allclose(cut[0, 0].permute(1, 2, 0), centre, atol=1e-4)


def test_softmax_is_averaged_not_logits(mean: npt.NDArray[np.float32]) -> None:
    images = noise(4, seed=2)
    found = probabilities(_Peaks(), torch.from_numpy(images), Views(torch.from_numpy(mean), 10))
    logits = [peaks(view) for view in numpy_views(images, mean)]
    averaged = np.mean([softmax(each) for each in logits], axis=0)
    np.testing.assert_allclose(found[10], averaged, atol=1e-3)
    of_averaged_logits = softmax(np.mean(logits, axis=0))
    assert np.abs(of_averaged_logits - averaged).max() > 0.01  # else it proves nothing
    np.testing.assert_allclose(found[1], softmax(logits[0]), atol=1e-3)


def test_probabilities_sum_to_one_and_keep_no_gradient(mean: npt.NDArray[np.float32]) -> None:
    found = probabilities(_Peaks(), torch.from_numpy(noise(4)), Views(torch.from_numpy(mean), 10))
    for each in found.values():
        torch.testing.assert_close(each.sum(1), torch.ones(4))
        assert not each.requires_grad


def test_one_view_gives_no_ten_view_figure(mean: npt.NDArray[np.float32]) -> None:
    found = probabilities(_Peaks(), torch.from_numpy(noise(1)), Views(torch.from_numpy(mean), 1))
    assert list(found) == [1]


def numpy_wrong(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> tuple[int, int]:
    order = np.argsort(-scores, axis=1)
    top1 = sum(label != row[0] for row, label in zip(order, labels, strict=True))
    top5 = sum(label not in row[:5] for row, label in zip(order, labels, strict=True))
    return top1, top5


@pytest.mark.parametrize("classes", [2, 3, 5, 6, 40])
def test_wrong_counts_as_numpy_does(classes: int) -> None:
    generator = np.random.default_rng(classes)
    scores = generator.normal(size=(200, classes)).astype(np.float32)
    labels = generator.integers(0, classes, 200)
    top1, top5 = wrong(torch.from_numpy(scores), torch.from_numpy(labels))
    assert (int(top1), int(top5)) == numpy_wrong(scores, labels)
    assert int(top1) > 0


def test_with_five_classes_or_fewer_top5_is_never_wrong() -> None:
    for classes in (1, 2, 5):
        scores = torch.randn(30, classes, generator=torch.Generator().manual_seed(0))
        _, top5 = wrong(scores, torch.arange(30) % classes)
        assert int(top5) == 0


def figures_of(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], mean: npt.NDArray[np.float32]
) -> dict[int, tuple[float, float, float]]:
    """Loss, top-1 and top-5 error by views, in NumPy."""
    views = [softmax(peaks(view)) for view in numpy_views(images, mean)]
    found = {}
    for count, averaged in ((1, views[0]), (10, np.mean(views, axis=0))):
        top1, top5 = numpy_wrong(averaged.astype(np.float32), labels)
        loss = -np.log(averaged[np.arange(len(labels)), labels]).mean()
        found[count] = (float(loss), top1 / len(labels), top5 / len(labels))
    return found


@pytest.mark.parametrize("batch", [1, 4, 7, 100])
def test_each_image_counts_once_for_any_batch_size(
    batch: int, mean: npt.NDArray[np.float32]
) -> None:
    images, labels = noise(18, seed=9), np.arange(18) % 6
    found = evaluate(_Peaks(), batches_of(images, labels, batch), Views(torch.from_numpy(mean), 10))
    for count, (loss, top1, top5) in figures_of(images, labels, mean).items():
        assert found[count].samples == 18
        assert found[count].loss == pytest.approx(loss, rel=1e-4)
        assert (found[count].top1_error, found[count].top5_error) == (top1, top5)


def test_the_centre_figure_is_the_same_with_one_view_and_with_ten(
    mean: npt.NDArray[np.float32],
) -> None:
    images, labels = noise(6, seed=3), np.arange(6)
    one, ten = (
        evaluate(_Peaks(), batches_of(images, labels, 4), Views(torch.from_numpy(mean), views))
        for views in (1, 10)
    )
    assert one == {1: ten[1]}
    assert ten[10] != ten[1]


def test_five_views_are_a_part_of_the_ten(mean: npt.NDArray[np.float32]) -> None:
    images, labels = noise(6, seed=3), np.arange(6)
    one, five, ten = (
        evaluate(_Peaks(), batches_of(images, labels, 4), Views(torch.from_numpy(mean), views))
        for views in (1, 5, 10)
    )
    assert (list(one), list(five), list(ten)) == ([1], [1, 5], [1, 5, 10])
    assert one[1] == five[1] == ten[1]
    assert five[5] == ten[5]
    assert len({ten[1].loss, ten[5].loss, ten[10].loss}) == 3


def test_all_views_are_of_one_pass_over_the_images(mean: npt.NDArray[np.float32]) -> None:
    images, labels = noise(5), np.arange(5)
    passes, views_seen = 0, 0

    class Counting(_Peaks):
        def forward(self, view: torch.Tensor) -> torch.Tensor:
            nonlocal views_seen
            views_seen += len(view)
            return super().forward(view)

    def once() -> Iterator[Batch]:
        nonlocal passes
        passes += 1
        yield from batches_of(images, labels, 2)

    judge(Counting(), once(), Views(torch.from_numpy(mean), 10))
    assert (passes, views_seen) == (1, 5 * 10)


def test_samples_are_judged_one_by_one(mean: npt.NDArray[np.float32]) -> None:
    """In the order of the file, though the loader's memory is used again for every batch."""
    images, labels = noise(7, seed=4), np.arange(7) % 6
    memory = torch.empty(3, dtype=torch.int64)

    def reused() -> Iterator[Batch]:
        for batch in batches_of(images, labels, 3):
            part = memory[: len(batch.labels)]
            yield batch._replace(labels=part.copy_(batch.labels))

    found = judge(_Peaks(), reused(), Views(torch.from_numpy(mean), 5))
    views = probabilities(_Peaks(), torch.from_numpy(images), Views(torch.from_numpy(mean), 5))
    for count, softmax in views.items():
        judged = found[count]
        assert judged.labels.tolist() == labels.tolist()
        assert judged.best.tolist() == softmax.argmax(1).tolist()
        likely = softmax[torch.arange(7), torch.from_numpy(labels)]
        torch.testing.assert_close(judged.loss, -likely.log())
        sixth = softmax.argmin(1)  # of six classes, the one that is not among the best five
        assert judged.top5_wrong.tolist() == (sixth == torch.from_numpy(labels)).tolist()
        assert score(judged).top1_error == float(judged.top1_wrong.double().mean())


def test_without_images_there_are_no_errors_to_tell(mean: npt.NDArray[np.float32]) -> None:
    """As in a validation that a signal has stopped before its first batch."""
    found = evaluate(_Peaks(), iter(()), Views(torch.from_numpy(mean)))
    assert found[1].samples == 0
    assert np.isnan(found[1].loss)


def test_a_probability_of_zero_gives_a_finite_loss(mean: npt.NDArray[np.float32]) -> None:
    class Certain(nn.Module):
        def forward(self, view: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1e4, -1e4]]).expand(len(view), 2)

    labels = np.array([1, 1])
    found = evaluate(Certain(), batches_of(noise(2), labels, 2), Views(torch.from_numpy(mean), 1))
    assert 80 < found[1].loss < 100
    assert found[1].top1_error == 1.0


@pytest.mark.parametrize("training", [True, False])
def test_dropout_and_batch_norm_evaluate_and_the_mode_comes_back(
    training: bool, mean: npt.NDArray[np.float32]
) -> None:
    network = PaperNet(3, seed=0, width=0.05, norm="batch", lrn_alpha=0, dropout=0.5)
    network.train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = noise(3), np.arange(3)
    first, second = (
        evaluate(network, batches_of(images, labels, 2), Views(torch.from_numpy(mean), 1))
        for _ in range(2)
    )
    assert first == second
    assert network.training is training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_beton_counts_each_image_once(betons: Path, mean: npt.NDArray[np.float32]) -> None:
    opened = open_dataset(betons / "val.beton")
    loaded = Batches(opened, 4, 1)
    stored = [(b.images.clone(), b.labels.clone()) for b in loaded.sequential()]
    images: Any = torch.cat([each for each, _ in stored]).numpy()
    labels: Any = torch.cat([each for _, each in stored]).numpy()
    found = evaluate(_Peaks(), loaded.sequential(), Views(torch.from_numpy(mean), 10))
    assert found[1].samples == 9
    for count, (loss, top1, top5) in figures_of(images, labels, mean).items():
        assert found[count].loss == pytest.approx(loss, rel=1e-4)
        assert (found[count].top1_error, found[count].top5_error) == (top1, top5)
