"""Batches: each sample once, the same images for any batch size and thread count, no hang."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pytest
import torch
from ffcv.loader.epoch_iterator import EpochIterator

from prep import handover, images
from prep.handover import Statistics
from prep.program import UserError
from train import reading
from train.augment import Augment, draw
from train.augmentation import Augmentation
from train.dataset import Dataset, open_dataset, training_statistics
from train.epoch_order import OrderName, epoch_order
from train.epoch_thread import PATIENCE
from train.loader import AHEAD, Batch, Batches
from train.readahead import RecordsAhead
from train.reading import SampleError

CROP, SEED, SAMPLES, CLASSES = 224, 11, 18, 3
TIMEOUT = 40.0  # seconds, for what would otherwise hang the tests; nothing takes that long


class Collected(NamedTuple):
    """Copies of what an epoch gave, [N] each in the epoch's order, and the batches' sizes."""

    images: npt.NDArray[Any]
    labels: list[int]
    samples: list[int]
    sizes: list[int]

    def in_file_order(self) -> npt.NDArray[Any]:
        return self.images[np.argsort(self.samples)]


def collect(batches: Iterator[Batch]) -> Collected:
    found = [(b.images.numpy().copy(), b.labels.tolist(), b.samples.tolist()) for b in batches]
    return Collected(
        np.concatenate([part for part, _, _ in found]),
        [label for _, labels, _ in found for label in labels],
        [sample for _, _, samples in found for sample in samples],
        [len(labels) for _, labels, _ in found],
    )


def within_time(action: Callable[[], object]) -> object:
    """Run `action` on a thread, so that a hang fails the test; gives its result or exception."""
    outcome: list[object] = []

    def call() -> None:
        try:
            outcome.append(action())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "it hangs"
    return outcome[0]


def loader_threads() -> int:
    return sum(isinstance(thread, EpochIterator) for thread in threading.enumerate())


def loader_threads_end() -> bool:
    """Whether they do, once they are let."""
    for thread in threading.enumerate():
        if isinstance(thread, EpochIterator):
            thread.join(TIMEOUT)
    return loader_threads() == 0


def left_behind() -> tuple[int, ...]:
    """This process's threads, the system's count of them, and its file handles."""
    gc.collect()
    return tuple(len(list(Path(f"/proc/self/{kind}").iterdir())) for kind in ("task", "fd"))


@pytest.fixture(scope="module")
def train_set(betons: Path) -> Dataset:
    return open_dataset(betons / "train.beton")


@pytest.fixture(scope="module")
def statistics(train_set: Dataset) -> Statistics:
    return training_statistics(train_set)


@pytest.fixture(scope="module")
def stored(train_set: Dataset) -> npt.NDArray[np.uint8]:
    """uint8 [18,256,256,3], what the beton holds, read without FFCV."""
    records = handover.read_records(handover.records_path(train_set.path))
    data = train_set.path.read_bytes()
    places = zip(records.ptr.tolist(), records.size.tolist(), strict=True)
    return np.stack([images.decode_as_ffcv(data[ptr : ptr + size]) for ptr, size in places])


def make_augment(statistics: Statistics) -> Augment:
    return Augment(Augmentation(CROP, True, 0.1, SEED), statistics)


@pytest.fixture(scope="module")
def sevens(train_set: Dataset, statistics: Statistics) -> Batches:
    """18 samples in batches of 7, 7, 4, on one thread."""
    return Batches(train_set, 7, 1, make_augment(statistics))


@pytest.fixture(scope="module")
def seventh_epoch(sevens: Batches) -> Collected:
    return collect(sevens.epoch(SEED, 7))


@pytest.fixture(scope="module")
def plain(train_set: Dataset) -> Batches:
    """Evaluation batches of 4: 4, 4, 4, 4, 2."""
    return Batches(train_set, 4, 1)


def expected(
    stored: npt.NDArray[np.uint8], statistics: Statistics, sample: int, epoch: int
) -> npt.NDArray[np.float64]:
    """[3,224,224], from sections 2 and 4.1 of the paper, with the project's random numbers."""
    top, left, mirror, alphas = draw(SEED, epoch, sample, 256 - CROP + 1, 0.1)
    window = np.s_[top : top + CROP, left : left + CROP]
    image = stored[sample][window].astype(np.float64) - statistics.mean_image[window]
    if mirror:
        image = image[:, ::-1]
    deviations = np.sqrt(np.maximum(statistics.eigenvalues, 0))
    image = image + statistics.eigenvectors @ (np.array(alphas) * deviations)
    return image.transpose(2, 0, 1)  # HWC to CHW


def test_every_sample_once_when_the_batch_does_not_divide(seventh_epoch: Collected) -> None:
    assert sorted(seventh_epoch.samples) == list(range(SAMPLES))
    assert seventh_epoch.sizes == [7, 7, 4]


def test_the_number_of_batches_counts_the_partial_one(sevens: Batches, plain: Batches) -> None:
    assert (len(sevens), len(plain)) == (3, 5)


def test_images_are_the_papers_augmentation_of_the_stored_pixels(
    seventh_epoch: Collected, stored: npt.NDArray[np.uint8], statistics: Statistics
) -> None:
    assert seventh_epoch.images.shape == (SAMPLES, 3, CROP, CROP)
    assert seventh_epoch.images.dtype == np.float32
    for image, sample in zip(seventh_epoch.images, seventh_epoch.samples, strict=True):
        wanted = expected(stored, statistics, sample, epoch=7)
        np.testing.assert_allclose(image, wanted, rtol=0, atol=1e-3)


def test_training_images_are_channels_last(sevens: Batches) -> None:
    for batch in sevens.epoch(SEED, 0):
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert (batch.labels.dtype, batch.samples.dtype) == (torch.int64, torch.int64)


def test_labels_belong_to_their_samples(seventh_epoch: Collected, plain: Batches) -> None:
    # prep writes the samples class by class, six each.
    labels = dict(zip(seventh_epoch.samples, seventh_epoch.labels, strict=True))
    assert [labels[sample] for sample in range(SAMPLES)] == [0] * 6 + [1] * 6 + [2] * 6
    assert collect(plain.sequential()).labels == [0] * 6 + [1] * 6 + [2] * 6


def test_the_same_epoch_again_is_the_same(sevens: Batches, seventh_epoch: Collected) -> None:
    collect(sevens.epoch(SEED, 2))
    again = collect(sevens.epoch(SEED, 7))
    assert again.samples == seventh_epoch.samples
    assert np.array_equal(again.images, seventh_epoch.images)


def test_another_epoch_has_another_order_and_other_crops(
    sevens: Batches, seventh_epoch: Collected
) -> None:
    other = collect(sevens.epoch(SEED, 8))
    assert other.samples != seventh_epoch.samples
    differing = other.in_file_order() != seventh_epoch.in_file_order()
    assert differing.any(axis=(1, 2, 3)).all()


def test_the_order_is_that_of_seed_and_epoch(seventh_epoch: Collected) -> None:
    pages = np.zeros(SAMPLES, np.int64)
    assert seventh_epoch.samples == epoch_order("random", pages, SEED, 7).tolist()


@pytest.mark.parametrize("workers", range(1, min(4, numba.config.NUMBA_NUM_THREADS) + 1))
def test_images_do_not_depend_on_batch_size_or_threads(
    workers: int, train_set: Dataset, statistics: Statistics, seventh_epoch: Collected
) -> None:
    batch = {1: 1, 2: 5, 3: 6, 4: 100}[workers]  # single; does not divide; does; more than all
    other = collect(Batches(train_set, batch, workers, make_augment(statistics)).epoch(SEED, 7))
    assert other.sizes == [min(batch, SAMPLES - start) for start in range(0, SAMPLES, batch)]
    assert other.samples == seventh_epoch.samples
    assert np.array_equal(other.images, seventh_epoch.images)


@pytest.mark.parametrize("first_step", range(1, 4))
def test_an_epoch_goes_on_at_any_step(
    sevens: Batches, seventh_epoch: Collected, first_step: int
) -> None:
    """Batches of 7, 7, 4; after the last of them nothing is left."""
    batches = list(sevens.epoch(SEED, 7, first_step))
    assert len(batches) == 3 - first_step
    if batches:
        rest = collect(sevens.epoch(SEED, 7, first_step))
        assert rest.samples == seventh_epoch.samples[7 * first_step :]
        assert np.array_equal(rest.images, seventh_epoch.images[7 * first_step :])


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_together_have_the_batches_of_one(
    train_set: Dataset, statistics: Statistics, seventh_epoch: Collected, world: int
) -> None:
    parts = [
        [
            (batch.samples.tolist(), batch.images.numpy().copy())
            for batch in Batches(
                train_set, 7, 1, make_augment(statistics), rank=rank, world=world
            ).epoch(SEED, 7)
        ]
        for rank in range(world)
    ]
    assert {len(part) for part in parts} == {3}, "every process takes every step"
    together = list(zip(*parts, strict=True))
    samples = [sample for step in together for found, _ in step for sample in found]
    assert samples == seventh_epoch.samples
    found = np.concatenate([images for step in together for _, images in step])
    assert np.array_equal(found, seventh_epoch.images)


def test_a_process_without_samples_in_the_last_batch_has_an_empty_one(train_set: Dataset) -> None:
    """18 samples in batches of 17 for three processes: the last batch has one sample."""
    batches = list(Batches(train_set, 17, 1, rank=2, world=3).sequential())
    assert [len(batch.samples) for batch in batches] == [5, 0]
    assert batches[1].images.shape == (0, 256, 256, 3)
    assert batches[1].images.dtype == torch.uint8


def test_fewer_samples_than_processes_are_each_of_one(train_set: Dataset) -> None:
    found, world = [], len(train_set) + 2
    for rank in range(world):
        batches = Batches(train_set, 32, 1, rank=rank, world=world)
        for _ in range(2):  # epochs
            (batch,) = batches.sequential()
            assert len(batch.images) == len(batch.samples) == (rank < len(train_set))
        found += batch.samples.tolist()
    assert found == list(range(len(train_set)))


def test_a_batch_that_cannot_be_divided_is_refused(train_set: Dataset) -> None:
    with pytest.raises(UserError, match="a batch of 2 cannot be divided among 3 processes"):
        Batches(train_set, 2, 1, rank=0, world=3)


@pytest.mark.parametrize("order", ["quasi-random", "sequential"])
def test_other_orders_have_the_same_pixels(
    train_set: Dataset, statistics: Statistics, seventh_epoch: Collected, order: OrderName
) -> None:
    batches = Batches(train_set, 7, 1, make_augment(statistics), order=order)
    found = collect(batches.epoch(SEED, 7))
    assert found.samples == epoch_order(order, train_set.pages, SEED, 7).tolist()
    assert np.array_equal(found.in_file_order(), seventh_epoch.in_file_order())


def test_two_epochs_at_once_are_refused(plain: Batches) -> None:
    """They would write into one memory."""
    first = plain.sequential()
    next(first)
    with pytest.raises(RuntimeError, match="has not ended"):
        next(plain.sequential())
    first.close()  # type: ignore[attr-defined]


def test_evaluation_batches_are_the_stored_pixels_in_file_order(
    plain: Batches, stored: npt.NDArray[np.uint8]
) -> None:
    found = collect(plain.sequential())
    assert found.sizes == [4, 4, 4, 4, 2]
    assert found.samples == list(range(SAMPLES))
    assert np.array_equal(found.images, stored)


def test_a_batch_stays_while_the_next_ones_are_made(plain: Batches, stored: Any) -> None:
    """The buffers are FFCV's own: one must not be written before the consumer asks for more."""
    iterator = plain.sequential()
    first = next(iterator)
    copy = first.images.clone()
    thread = next(t for t in threading.enumerate() if isinstance(t, EpochIterator))
    thread.join(TIMEOUT / 100)  # it gets as far ahead as the queue lets it
    assert torch.equal(first.images, copy)
    assert np.array_equal(copy.numpy(), stored[:4])
    iterator.close()  # type: ignore[attr-defined]


def test_the_threads_of_torch_stay_as_they_were(train_set: Dataset, plain: Batches) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 2)
        Batches(train_set, 4, 1)
        assert torch.get_num_threads() == before + 2
        for _ in plain.sequential():
            assert torch.get_num_threads() == before + 2
        assert torch.get_num_threads() == before + 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("taken", range(6))
def test_breaking_out_ends_the_thread(plain: Batches, taken: int) -> None:
    """After any number of the five batches, also with the queue full and all batches made."""
    before = loader_threads()

    def break_out() -> None:
        iterator = plain.sequential()
        for _ in range(taken):
            next(iterator)
        for thread in threading.enumerate():
            if isinstance(thread, EpochIterator):
                thread.join(0.3)  # time to fill the queue and to wait for room in it
        iterator.close()  # type: ignore[attr-defined]

    assert within_time(break_out) is None
    assert loader_threads() == before


def test_breaking_out_reads_no_more_than_was_begun(
    train_set: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole epoch's rest would be minutes of ImageNet."""
    made: list[int] = []

    def read(stored: Any, samples: Any, *others: Any) -> None:
        made.extend(samples)
        kernel(stored, samples, *others)

    kernel: Any = reading.read_samples
    monkeypatch.setattr(reading, "read_samples", read)
    epoch = Batches(train_set, 1, 1).sequential()
    next(epoch)
    within_time(epoch.close)
    assert len(made) <= 2 + AHEAD + 1  # had and waiting, in the queue, under way
    assert loader_threads() == 0


def test_a_program_s_end_does_not_wait_for_an_epoch(train_set: Dataset) -> None:
    """Whose batches nobody takes any more."""
    batches = Batches(train_set, 1, 1)
    epoch = batches.sequential()
    next(epoch)
    began = time.monotonic()
    within_time(batches._pipeline.stop)  # as at the interpreter's exit
    assert not batches._pipeline.is_alive()
    assert time.monotonic() - began < PATIENCE / 2
    within_time(epoch.close)


@pytest.mark.parametrize("asking", [True, False], ids=["asking for a batch", "having one"])
def test_ctrl_c_leaves_no_thread_or_file_handle(
    train_set: Dataset, monkeypatch: pytest.MonkeyPatch, asking: bool
) -> None:
    list(Batches(train_set, 4, 1).sequential())  # numba's own threads have begun
    before, kernel = left_behind(), reading.read_samples

    def slow(*arguments: Any) -> None:
        time.sleep(0.5)
        kernel(*arguments)

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def epoch() -> None:
        batches = Batches(train_set, 4, 1)
        for _ in batches.sequential():
            if not asking:
                interrupt()
                time.sleep(TIMEOUT)

    if asking:
        monkeypatch.setattr(reading, "read_samples", slow)
        threading.Timer(0.2, interrupt).start()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            epoch()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert loader_threads_end()
    assert left_behind() == before


def test_a_loader_that_is_thrown_away_leaves_nothing(
    train_set: Dataset, statistics: Statistics
) -> None:
    for augment in (None, make_augment(statistics)):
        counts = []
        for _ in range(3):
            for _ in Batches(train_set, 7, 2, augment).epoch(0, 0):
                pass
            counts.append(left_behind())
        assert counts[0] == counts[1] == counts[2]


def test_an_epoch_that_is_over_is_let_go(plain: Batches) -> None:
    """Its buffers and its order too, before the next one begins."""
    epoch = plain.epoch(0, 0)
    next(epoch)
    thread = weakref.ref(plain._iterator)
    assert thread() is not None
    epoch.close()
    until = time.monotonic() + 5
    while thread() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert thread() is None


def test_an_epoch_after_a_broken_one_is_whole(sevens: Batches, seventh_epoch: Collected) -> None:
    next(sevens.epoch(SEED, 3))
    again = collect(sevens.epoch(SEED, 7))
    assert np.array_equal(again.images, seventh_epoch.images)


class _FailsAt:
    """Stands for Reading's function; raises at its n-th batch."""

    with_indices = True

    def __init__(self, batch: int, error: BaseException) -> None:
        self.left, self.error = batch, error

    def __call__(self, *arrays: Any) -> Any:
        if self.left == 0:
            raise self.error
        self.left -= 1
        return arrays[0]  # the output's memory


@pytest.mark.parametrize("good", [0, 1, 4])
def test_an_exception_in_the_pipeline_reaches_the_consumer(
    train_set: Dataset, statistics: Statistics, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    error = RuntimeError("the decoder\nis out of ideas")
    monkeypatch.setattr(reading.Reading, "generate_code", lambda _self: _FailsAt(good, error))
    batches = Batches(train_set, 3, 1, make_augment(statistics))
    counted = 0

    def consume() -> None:
        nonlocal counted
        for _ in batches.epoch(SEED, 0):
            counted += 1

    failure = within_time(consume)
    assert isinstance(failure, UserError)
    assert str(train_set.path) in str(failure)
    assert "the decoder" in str(failure)
    assert "\n" not in str(failure)
    assert failure.__cause__ is error
    assert counted == good
    assert loader_threads() == 0


def test_an_exception_without_words_is_named_by_its_type(
    train_set: Dataset, statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading.Reading, "generate_code", lambda _self: _FailsAt(0, MemoryError()))
    batches = Batches(train_set, 3, 1, make_augment(statistics))
    failure = within_time(lambda: list(batches.epoch(SEED, 0)))
    assert isinstance(failure, UserError)
    assert "MemoryError" in str(failure)


def test_a_damaged_record_ends_the_epoch_with_its_name(betons: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(betons, tmp_path / "betons")) / "train.beton"
    dataset = open_dataset(copy)
    with copy.open("r+b") as file:
        file.seek(int(dataset.records.ptr[11]) + 500)
        file.write(b"\0\0\0\0")
    failure = within_time(lambda: list(Batches(dataset, 4, 2).sequential()))
    assert isinstance(failure, SampleError)
    assert f"{copy}: sample 11 " in str(failure)
    assert loader_threads() == 0


def test_a_stalled_read_ends_the_epoch(train_set: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system that does not answer; the thread itself cannot be ended."""
    answers = threading.Event()

    def hangs(*arguments: Any) -> None:
        status = arguments[-1]
        status[:2] = reading.READ
        answers.wait(TIMEOUT)
        status[:] = reading.READ

    monkeypatch.setattr(reading, "read_samples", hangs)
    batches = Batches(train_set, 6, 1, stall=0.5)
    failure = within_time(lambda: list(batches.sequential()))
    assert isinstance(failure, UserError)
    assert f"{train_set.path}: no batch for 0.5 s while reading samples 2, 3, 4, ...;" in str(
        failure
    )
    answers.set()
    assert loader_threads_end()


def test_a_stall_before_any_sample_is_read_is_told(
    train_set: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(RecordsAhead, "start_batch", lambda *_: answers.wait(TIMEOUT))
    batches = Batches(train_set, 6, 1, stall=0.5)
    failure = within_time(lambda: list(batches.epoch(0, 0)))
    answers.set()
    assert "no batch for 0.5 s while asking for the next batch's samples; see" in str(failure)
    assert loader_threads_end()


def test_a_process_that_was_stopped_has_not_waited(
    train_set: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z, `docker pause`, a job that SLURM suspends."""
    kernel: Any = reading.read_samples
    stopping = f"kill -STOP {os.getpid()}; sleep 2; kill -CONT {os.getpid()}"

    def stopped(*arguments: Any) -> None:
        if not stops:
            stops.append(subprocess.Popen(["sh", "-c", stopping]))
            time.sleep(0.5)  # it is stopped during this
        kernel(*arguments)

    stops: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(reading, "read_samples", stopped)
    batches = Batches(train_set, 6, 1, stall=1.0)
    assert within_time(lambda: len(list(batches.sequential()))) == 3
    assert stops[0].wait() == 0


def test_a_slow_consumer_is_no_stall(train_set: Dataset) -> None:
    batches = Batches(train_set, 2, 1, stall=0.2)
    count = 0
    for _ in batches.sequential():
        time.sleep(0.3 if count < 2 else 0)
        count += 1
    assert count == 9


def test_breaking_out_before_a_failure_ends_the_thread(
    train_set: Dataset, statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        reading.Reading, "generate_code", lambda _self: _FailsAt(2, OSError("late"))
    )
    batches = Batches(train_set, 3, 1, make_augment(statistics))

    def take_one() -> None:
        next(batches.epoch(SEED, 0))

    assert within_time(take_one) is None
    assert loader_threads() == 0


def test_more_threads_than_the_machine_gives_are_refused(train_set: Dataset) -> None:
    most = numba.config.NUMBA_NUM_THREADS
    with pytest.raises(UserError, match=f"--workers {most + 1} .* give --workers {most}"):
        Batches(train_set, 4, most + 1)


def test_a_mean_image_of_another_size_is_refused(
    train_set: Dataset, statistics: Statistics
) -> None:
    small = dataclasses.replace(statistics, mean_image=np.zeros((224, 224, 3), np.float32))
    augment = make_augment(small)
    with pytest.raises(UserError, match="statistics of the training data"):
        Batches(train_set, 4, 1, augment)


def test_the_loader_leaves_numba_s_types_alone(train_set: Dataset) -> None:
    """With FFCV's own, kernels compiled later could not write to uint8 arrays."""
    import numba

    assert len(list(Batches(train_set, 4, workers=1).sequential())) > 0
    assert numba.uint8[::1].mutable
