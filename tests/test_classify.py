"""Classifying a file equals evaluating the same original in a beton."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prep import plan, resize, stats, write
from prep.images import Settings
from prep.program import UserError
from prep.sources import find_source
from train import checkpoint as checkpoints
from train import networks
from train.checkpoint import TrainedOn
from train.classify import Prediction, Rejected, classify, load_picture, picture_files
from train.dataset import open_dataset, training_statistics
from train.evaluate import Views, probabilities
from train.loader import Batches
from train.networks.layers import AlexNet
from train.recipe import load_recipe


@pytest.fixture(scope="module")
def data(betons: Path) -> TrainedOn:
    train = open_dataset(betons / "train.beton")
    return checkpoints.trained_on(train.card, training_statistics(train))


@pytest.fixture(scope="module")
def network() -> AlexNet:
    """Random weights, scaled so that the classes' probabilities differ from picture to picture."""
    built = networks.build(load_recipe("demo", ["width=0.05"]), classes=3)
    with torch.no_grad():
        built.fc8.weight.mul_(0.05)
    return built.eval()


@pytest.fixture(scope="module")
def originals(source: Path) -> list[Path]:
    """The validation pictures, class by class as the beton has them."""
    return sorted((source / "val").glob("*/*.JPEG"))


def predicted(
    network: AlexNet, data: TrainedOn, paths: list[Path], k: int, count: int = 1
) -> list[Prediction]:
    """Of files that are all pictures, by so many views."""
    found = [*classify(network, data, paths, k, Views(data.mean_image, count))]
    predictions = [result for result in found if isinstance(result, Prediction)]
    assert len(predictions) == len(found)
    return predictions


@pytest.mark.parametrize("count", [1, 5, 10])
def test_a_file_gets_the_probabilities_of_its_sample(
    network: AlexNet, data: TrainedOn, originals: list[Path], betons: Path, count: int
) -> None:
    batches = Batches(open_dataset(betons / "val.beton"), 1, 1)
    predictions = predicted(network, data, originals, 3, count)
    assert len(predictions) == len(originals) == 9
    for prediction, batch in zip(predictions, batches.sequential(), strict=True):
        assert np.array_equal(prediction.pixels, batch.images[0].numpy())
        evaluated = probabilities(network, batch.images, Views(data.mean_image, count))[count][0]
        found = torch.empty(3)
        found[prediction.labels] = torch.tensor(prediction.probabilities)
        torch.testing.assert_close(found, evaluated, rtol=0, atol=1e-7)
    assert len({tuple(p.labels) for p in predictions}) > 1 or len(
        {round(p.probabilities[0], 4) for p in predictions}
    ) == len(predictions)  # the pictures do differ


@pytest.mark.parametrize(
    ("backend", "fit", "exif"),
    [
        ("opencv-2012", "squash", "ignore"),
        ("pillow", "crop", "apply"),
        ("turbo", "squash", "apply"),
    ],
)
def test_a_file_is_seen_as_the_prepared_set_was_made(
    network: AlexNet, source: Path, tmp_path: Path, backend: str, fit: str, exif: str
) -> None:
    """Equal pixels and equal logits, also of a picture that says it lies on its side."""
    copy = tmp_path / "src"
    shutil.copytree(source / "val", copy / "train")
    shutil.copy(source / "words.txt", copy)
    originals = sorted((copy / "train").glob("*/*.JPEG"))
    tag = Image.Exif()
    tag[0x0112] = 6
    with Image.open(originals[0]) as image:
        image.save(originals[0], exif=tag)
    settings = Settings(backend=backend, fit=fit, exif=exif)
    out = tmp_path / "out"
    resize.resize(find_source(copy), out, plan.Options(settings, jobs=1, max_rejects=0.0))
    stats.measure(out / "train", jobs=1)
    write.write_beton(out / "train", tmp_path / "train.beton", "jpg", jobs=1)

    dataset = open_dataset(tmp_path / "train.beton")
    data = checkpoints.trained_on(dataset.card, training_statistics(dataset))
    assert data.settings == settings
    predictions = predicted(network, data, originals, 3)
    for prediction, batch in zip(predictions, Batches(dataset, 1, 1).sequential(), strict=True):
        assert np.array_equal(prediction.pixels, batch.images[0].numpy())
        evaluated = probabilities(network, batch.images, Views(data.mean_image))[1][0]
        found = torch.empty(3)
        found[prediction.labels] = torch.tensor(prediction.probabilities)
        torch.testing.assert_close(found, evaluated, rtol=0, atol=0)


def test_predictions_are_best_first_with_their_names(
    network: AlexNet, data: TrainedOn, originals: list[Path]
) -> None:
    (prediction,) = predicted(network, data, originals[:1], 3)
    assert prediction.path == originals[0]
    assert prediction.probabilities == sorted(prediction.probabilities, reverse=True)
    assert sorted(prediction.labels) == [0, 1, 2]
    assert prediction.names == [("first", "second", "third")[n] for n in prediction.labels]
    assert sum(prediction.probabilities) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (2, 2), (5, 3), (1000, 3)])
def test_k_is_at_most_the_number_of_classes(
    network: AlexNet, data: TrainedOn, originals: list[Path], asked: int, given: int
) -> None:
    (prediction,) = predicted(network, data, originals[:1], asked)
    assert len(prediction.labels) == len(prediction.probabilities) == given


def test_predictions_come_in_the_order_of_the_files(
    network: AlexNet, data: TrainedOn, originals: list[Path]
) -> None:
    chosen = [originals[4], originals[0], originals[4]]
    assert [prediction.path for prediction in predicted(network, data, chosen, 1)] == chosen


def test_pictures_of_any_kind_and_size(data: TrainedOn, tmp_path: Path) -> None:
    for name, mode, size in (("a.png", "RGBA", (40, 300)), ("b.gif", "P", (700, 33))):
        path = tmp_path / name
        Image.new(mode, size).save(path)
        picture = load_picture(path, data)
        assert (picture.shape, picture.dtype) == ((256, 256, 3), np.uint8)


def test_a_file_that_is_no_picture_is_named(data: TrainedOn, tmp_path: Path) -> None:
    text, empty, absent = (tmp_path / name for name in ("a.txt", "b.jpg", "c.jpg"))
    text.write_text("no picture")
    empty.touch()
    for path, reason in (
        (text, "known format"),
        (empty, "empty"),
        (absent, "No such file"),
        (tmp_path, "directory"),
    ):
        with pytest.raises(UserError) as caught:
            load_picture(path, data)
        message = str(caught.value)
        assert str(path) in message
        assert reason in message
        assert "\n" not in message


def test_a_truncated_picture_is_named_and_the_others_go_on(
    network: AlexNet, data: TrainedOn, originals: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(originals[0].read_bytes()[:2000])
    paths = [originals[1], path, originals[2]]
    first, cut, last = classify(network, data, paths, 1, Views(data.mean_image))
    assert isinstance(cut, Rejected)
    assert cut.path == path
    assert cut.reason.startswith(f"{path}: ")
    assert "truncated" in cut.reason
    for result, original in ((first, originals[1]), (last, originals[2])):
        assert isinstance(result, Prediction)
        assert result.path == original


def test_paths_are_taken_one_by_one(
    network: AlexNet, data: TrainedOn, originals: list[Path]
) -> None:
    """So that a program which writes paths gets answers while it writes."""
    taken = []

    def paths() -> Iterator[Path]:
        for path in originals[:2]:
            taken.append(path)
            yield path

    found = classify(network, data, paths(), 1, Views(data.mean_image))
    next(found)
    assert taken == originals[:1]


def test_a_folders_pictures_are_sorted_and_other_files_passed_over(tmp_path: Path) -> None:
    for name in ("b/2.JPEG", "b/10.png", "a.webp", "b/deep/er/x.jpg", "notes.txt", "b/._2.JPEG"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder" / "c.jpg").mkdir()  # a folder, whatever its name
    single = tmp_path / "single.txt"  # named by itself, it is taken at its word
    found = [*picture_files([single, tmp_path / "folder", tmp_path / "absent.jpg"])]
    below = [tmp_path / "folder" / name for name in ("a.webp", "b/10.png", "b/2.JPEG")]
    deep = tmp_path / "folder" / "b" / "deep" / "er" / "x.jpg"
    assert found == [single, *below, deep, tmp_path / "absent.jpg"]


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} has no pictures"):
        list(picture_files([tmp_path]))
