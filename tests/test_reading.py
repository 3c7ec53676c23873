"""Records to pixels: FFCV's own, and no damaged one passes, whatever is wrong with it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import augment_batch, make_statistics

from prep import handover, images
from prep.handover import Records
from prep.program import UserError
from train import reading
from train.augment import Augment
from train.augmentation import Augmentation
from train.reading import Reading, SampleError

SIDE, CROP = 256, 224


@pytest.fixture(scope="module")
def records(betons: Path) -> Records:
    return handover.read_records(handover.records_path(betons / "train.beton"))


@pytest.fixture
def beton(betons: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(betons / "train.beton", tmp_path / "copy.beton"))


def augmenting() -> Augment:
    return Augment(Augmentation(CROP, True, 0.1, 5), make_statistics(SIDE))


def read(
    path: Path,
    records: Records,
    samples: list[int],
    raw: bool = False,
    augment: Augment | None = None,
) -> npt.NDArray[Any]:
    operation = Reading(path, records, SIDE, raw, augment)
    out = np.zeros((len(samples), SIDE, SIDE, 3), np.uint8)
    if augment is not None:
        out = np.full((len(samples), CROP, CROP, 3), np.nan, np.float32)
    try:
        operation.generate_code()(out, None, np.array(samples, np.uint64))
    finally:
        operation.close()
    return out


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 8]))


def test_pixels_are_those_of_the_record(beton: Path, records: Records) -> None:
    samples = [3, 0, 17, 3]
    data = beton.read_bytes()
    for sample, pixels in zip(samples, read(beton, records, samples), strict=True):
        start, size = int(records.ptr[sample]), int(records.size[sample])
        assert np.array_equal(pixels, images.decode_as_ffcv(data[start : start + size]))


@pytest.mark.parametrize("epoch", [0, 9])
def test_augmented_it_gives_what_augmenting_its_pixels_does(
    beton: Path, records: Records, epoch: int
) -> None:
    samples, augment = [3, 0, 17, 3], augmenting()
    augment.epoch = epoch
    expected = np.empty((4, CROP, CROP, 3), np.float32)
    pixels = read(beton, records, samples)
    augment_batch(pixels, expected, np.array(samples), epoch, augment.tables)
    assert np.array_equal(read(beton, records, samples, augment=augment), expected)


def test_a_mean_image_of_another_side_is_refused(beton: Path, records: Records) -> None:
    small = Augment(Augmentation(CROP, True, 0.1, 5), make_statistics(240))
    with pytest.raises(UserError, match="the images are 256x256, the mean image is 240x240; use"):
        Reading(beton, records, SIDE, False, small)


@pytest.mark.parametrize("augment", [None, augmenting()])
@pytest.mark.parametrize("place", [0, 1, 2, -1])
def test_a_flipped_bit_is_named_with_sample_and_file(
    beton: Path, records: Records, place: int, augment: Augment | None
) -> None:
    start, size = int(records.ptr[7]), int(records.size[7])
    flip(beton, start + [0, 200, size // 2][place] if place >= 0 else start + size - 1)
    with pytest.raises(SampleError, match=rf"{beton}: sample 7 \({size} bytes from {start} on\)"):
        read(beton, records, [1, 7, 2], augment=augment)
    read(beton, records, [1, 6, 2], augment=augment)  # of the others nothing is said


def test_a_file_that_became_shorter_is_no_crash(beton: Path, records: Records) -> None:
    """Mapped into memory, it would end the process with SIGBUS."""
    operation = Reading(beton, records, SIDE, raw=False)
    os.truncate(beton, int(records.ptr[9]) + 10)
    out = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    with pytest.raises(SampleError, match=r"sample 9 .*: the file ends before it does"):
        operation.generate_code()(out, None, np.array([8, 9]))
    operation.close()


def test_what_cannot_be_decoded_though_its_checksum_is_right(beton: Path, records: Records) -> None:
    """Such a JPEG was never prepared by prep; FFCV would leave the pixels of the batch before."""
    start, size = int(records.ptr[5]), int(records.size[5])
    with beton.open("r+b") as file:
        file.seek(start)
        file.write(bytes(size))
    checksums = records.crc32.copy()
    checksums[5] = reading.crc32(np.zeros(size, np.uint8))
    broken = Records(records.ptr, records.size, checksums)
    with pytest.raises(SampleError, match=r"sample 5 .*: it cannot be decoded"):
        read(beton, broken, [5])


def test_a_failing_disk_is_named_by_the_system_s_words(beton: Path, records: Records) -> None:
    operation = Reading(beton, records, SIDE, raw=False)
    folder = os.open(beton.parent, os.O_RDONLY)
    os.dup2(folder, operation.file)  # pread() of it fails
    os.close(folder)
    out = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    with pytest.raises(SampleError, match=r"sample 4 .*: Is a directory"):
        operation.generate_code()(out, None, np.array([4]))
    operation.close()


def test_raw_records_are_read_into_their_place(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    path = tmp_path / "raw"
    path.write_bytes(b"x" * 10 + pixels.tobytes())
    size = np.full(3, SIDE * SIDE * 3, np.uint64)
    ptr = np.uint64(10) + np.arange(3, dtype=np.uint64) * size[0]
    checksums = np.array([reading.crc32(image.reshape(-1)) for image in pixels], np.uint32)
    of_raw = Records(ptr, size, checksums)
    assert np.array_equal(read(path, of_raw, [2, 0], raw=True), pixels[[2, 0]])
    augment, expected = augmenting(), np.empty((2, CROP, CROP, 3), np.float32)
    augment_batch(pixels[[2, 0]], expected, np.array([2, 0]), 0, augment.tables)
    assert np.array_equal(read(path, of_raw, [2, 0], True, augment), expected)
    flip(path, 10 + SIDE * SIDE * 3 + 5)
    with pytest.raises(SampleError, match=r"sample 1 .*: its crc32"):
        read(path, of_raw, [0, 1], raw=True)


@pytest.mark.parametrize("shape", [(2, 256, 256, 3), (5, 4, 64, 64, 3), (0, 256, 256, 3)])
def test_decoded_pixels_are_not_written_past_the_cache(shape: tuple[int, ...]) -> None:
    """Every picture lies 16 bytes off a multiple of 32, wherever memory begins."""
    for _ in range(8):
        memory = reading.cached(shape)
        assert memory.shape == shape
        assert memory.flags.c_contiguous
        pictures = memory.reshape(-1, *shape[-3:])
        assert all(picture.ctypes.data % 32 == 16 for picture in pictures)


def test_the_samples_of_the_batch_under_way_are_known(beton: Path, records: Records) -> None:
    operation = Reading(beton, records, SIDE, raw=False)
    operation.samples = np.array([4, 8, 15])
    operation.status = np.array([reading.READ, reading.WAITING, reading.WAITING], np.uint8)
    assert operation.waiting() == [8, 15]
    operation.close()


@pytest.mark.parametrize("kernel", [reading.read_samples, reading.read_augmented])
def test_the_kernels_are_kept_on_disk(kernel: Any) -> None:
    """Functions called by address would keep numba from it."""
    assert kernel.stats.cache_hits or kernel.stats.cache_misses
    assert kernel._cache.cache_path
