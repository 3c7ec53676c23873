"""The two ways of feeding: equal values, on pictures of 256 and of other sides."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from prep import build, plan
from prep.program import UserError
from prep.sources import find_source
from train import start
from train.augment_device import DeviceAugment
from train.augmentation import Augmentation
from train.dataset import Dataset, open_dataset, training_statistics
from train.feed import Feed, Feeding, choose_feed, compiled_if_possible, feed_line
from train.processes import ALONE
from train.recipe import load_recipe
from train.state import RunSettings

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
AUGMENTATION = Augmentation(224, mirror=True, colour_noise=0.1, seed=3)


def feeding(dataset: Dataset, feed: Feed, batch: int = 7) -> Feeding:
    return Feeding(
        dataset,
        training_statistics(dataset),
        AUGMENTATION,
        batch,
        1,
        device=CPU,
        feed=feed,
        order="random",
    )


def collect(feeding: Feeding, epoch: int) -> tuple[npt.NDArray[np.float32], list[int]]:
    found = [(b.images.numpy().copy(), b.samples.tolist()) for b in feeding.epoch(3, epoch)]
    return np.concatenate([images for images, _ in found]), [s for _, some in found for s in some]


@pytest.fixture(scope="module")
def small_betons(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The betons of side 64, as Tiny ImageNet's."""
    out = tmp_path_factory.mktemp("small")
    build.build(find_source(source), out, plan.Options(settings=plan.Settings(side=64), jobs=1))
    return out


def test_both_ways_give_the_same_images(betons: Path) -> None:
    dataset = open_dataset(betons / "train.beton")
    for epoch in (0, 5):
        here, samples = collect(feeding(dataset, "cpu"), epoch)
        there, same_samples = collect(feeding(dataset, "gpu"), epoch)
        assert samples == same_samples
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-4)


def test_images_are_channels_last(betons: Path) -> None:
    dataset = open_dataset(betons / "train.beton")
    for feed in ("cpu", "gpu"):
        for batch in feeding(dataset, feed).epoch(0, 0):
            assert batch.images.shape[1:] == (3, 224, 224)
            assert batch.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_the_device_augments_to_the_networks_precision(
    betons: Path, precision: str, dtype: torch.dtype
) -> None:
    recipe = load_recipe("paper", [f"precision={precision}"])
    beton = betons / "train.beton"
    settings = RunSettings(beton, None, recipe, Path(), "never", CPU, 1, feed="gpu")
    batches = start.feeding(settings, start.open_train_data(beton), ALONE)
    assert {batch.images.dtype for batch in batches.epoch(0, 0)} == {dtype}


def test_pictures_of_another_side_are_enlarged_first(small_betons: Path) -> None:
    """Every sample once, the same for any batch."""
    dataset = open_dataset(small_betons / "train.beton")
    assert dataset.card.side == 64
    images, samples = collect(feeding(dataset, choose_feed(None, CPU, 64)), 1)
    assert images.shape == (len(dataset), 3, 224, 224)
    assert sorted(samples) == list(range(len(dataset)))
    again, _ = collect(feeding(dataset, "gpu", batch=4), 1)
    np.testing.assert_allclose(again, images, rtol=0, atol=1e-4)


def test_the_default_is_the_faster_way_for_the_device() -> None:
    assert choose_feed(None, CPU, 256) == "cpu"
    assert choose_feed(None, CUDA, 256) == "gpu"
    assert choose_feed("cpu", CUDA, 256) == "cpu"
    assert choose_feed("gpu", CPU, 256) == "gpu"
    assert choose_feed(None, CPU, 64) == "gpu"


def test_the_loader_s_threads_do_not_resize() -> None:
    with pytest.raises(UserError, match="--feed cpu takes images of side 256, these have 64"):
        choose_feed("cpu", CPU, 64)


def test_the_screen_says_where_images_are_augmented() -> None:
    assert feed_line("cpu", 256) == "feed cpu: images are augmented by the loader's threads"
    assert "on the device, resized from 64 to 256 pixels" in feed_line("gpu", 64)


def test_an_augmentation_that_cannot_be_compiled_is_used_as_it_is(
    betons: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics = training_statistics(open_dataset(betons / "train.beton"))
    augment, stored = DeviceAugment(AUGMENTATION, statistics), torch.zeros(2, 256, 256, 3)

    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("no C compiler\nhere")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    assert compiled_if_possible(augment, stored) == (
        augment,
        "the augmentation is not compiled (no C compiler), and slower for it",
    )
    made = augment.forward
    monkeypatch.setattr(torch, "compile", lambda *_, **__: made)
    assert compiled_if_possible(augment, stored.byte()) == (made, "")


def test_the_screen_says_that_a_gpu_s_augmentation_is_compiled(
    betons: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    batches = feeding(open_dataset(betons / "train.beton"), "gpu")
    batches.prepare(said.append)
    assert said == []  # on a CPU nothing is compiled
    monkeypatch.setattr(batches, "_device", CUDA)
    monkeypatch.setattr(torch, "zeros", lambda *shape, **_: torch.empty(*shape, dtype=torch.uint8))
    made = batches._augment
    monkeypatch.setattr(torch, "compile", lambda *_, **__: made)
    batches.prepare(said.append)
    assert said[0] == "compiling the augmentation ..."
    assert re.fullmatch(r"augmentation compiled: \d+\.\d s", said[1])
    monkeypatch.setattr(torch, "compile", lambda *_, **__: None)
    batches.prepare(said.append)
    assert "the augmentation is not compiled" in said[3]
