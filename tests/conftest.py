"""Small data that many tests share, made once a session."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

# Numba reads it once, when it is imported: loader threads 1..4 are tested on two cores too.
os.environ.setdefault("NUMBA_NUM_THREADS", "4")

from prep import plan, resize, stats, write
from prep.handover import Statistics
from prep.sources import find_source

if TYPE_CHECKING:
    from train.augment import Tables
    from train.checkpoint import Checkpoint
    from train.recipe import Recipe

# A machine that does something else meanwhile, or a kernel that is compiled, is no failure.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

CLASSES = ("n90000001", "n90000002", "n90000003")
TRAIN_PER_CLASS, VAL_PER_CLASS = 6, 3
SIDE = 256


def smooth_picture(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """A colourful picture without hard edges, which JPEG keeps well."""
    small = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpeg_bytes(picture: Image.Image, quality: int = 92) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def small_jpeg(seed: int, width: int = 40, height: int = 50) -> bytes:
    """A JPEG that differs with its seed."""
    return jpeg_bytes(smooth_picture(np.random.default_rng(seed), width, height))


def augment_batch(
    images_BSSC: npt.NDArray[np.uint8],
    out_BHWC: npt.NDArray[np.float32],
    samples_B: npt.NDArray[np.int64],
    epoch: int,
    run: Tables,
) -> None:
    """Each image of a batch augmented, compiled or as augment_image then is."""
    from train import augment

    for image, out, sample in zip(images_BSSC, out_BHWC, samples_B.tolist(), strict=True):
        augment.augment_image(image, out, sample, epoch, run)


def make_statistics(side: int) -> Statistics:
    """A mean image that differs everywhere, and axes that are not the colours'."""
    generator = np.random.default_rng(side)
    vectors = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    eigenvalues = np.array([14400.0, 1600.0, 400.0])
    return Statistics(
        count=1,
        mean_image=generator.uniform(90, 140, (side, side, 3)).astype(np.float32),
        channel_mean=np.zeros(3),
        covariance=vectors @ np.diag(eigenvalues) @ vectors.T,
        eigenvalues=eigenvalues,
        eigenvectors=vectors,
        decoder="test",
        pixels_id="test",
    )


def make_checkpoint(recipe: Recipe) -> Checkpoint:
    """Of two classes and a mean image of 4x4, after one step, so that there are velocities."""
    import torch

    from train import networks, optimiser
    from train.checkpoint import Checkpoint, TrainedOn

    mean = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (4, 4, 3))).float()
    names = ["n1", "n2"], ["one", "two"]
    network = networks.build(recipe, 2)
    sgd = optimiser.build(network, recipe)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 0.25)
    sgd.step()
    return Checkpoint(
        recipe=recipe,
        data=TrainedOn(*names, 4, 95, "turbo", "crop", "ignore", "ab" * 32, mean),
        network=network.state_dict(),
        average={},
        optimiser=sgd.state_dict(),
        scaler={},
        epoch=3,
        epoch_step=0,
        step=12,
        sums=[0.0] * 8,
        clock=[0.0] * 3,
        history=[{"loss": 2.0, "val_top1_error": 0.5}, {"loss": 1.5, "val_top1_error": 0.25}],
        threads=2,
        origin="",
        val_pixels_id="",
        labels_sha256="",
    )


def tar_bytes(files: dict[str, bytes]) -> bytes:
    """An uncompressed tar of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def make_source(root: Path, train: int = TRAIN_PER_CLASS, val: int = VAL_PER_CLASS) -> Path:
    """Class folders with `train` and `val` pictures a class, and words.txt."""
    generator = np.random.default_rng(7)
    for split, count in (("train", train), ("val", val)):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                width, height = (int(side) for side in generator.integers(180, 520, 2))
                picture = smooth_picture(generator, width, height)
                (folder / f"{name}_{number}.JPEG").write_bytes(jpeg_bytes(picture))
    names = zip(CLASSES, ("first", "second", "third"), strict=True)
    (root / "words.txt").write_text("".join(f"{wnid}\t{name}\n" for wnid, name in names))
    return root


@pytest.fixture(scope="session", autouse=True)
def numba_s_types_stay_as_they_are() -> None:
    """FFCV's own Loader, which some tests use, marks numba's uint8[::1] as read-only.

    All of numba shares that object, so every kernel that writes to uint8, and is compiled later in
    the process, would fail. Here its memory manager has a read-only type of its own.
    """
    import numba  # after NUMBA_NUM_THREADS is set
    from ffcv.loader import loader
    from ffcv.memory_managers import OSCacheManager
    from ffcv.pipeline.compiler import Compiler

    read_only = numba.types.Array(numba.uint8, 1, "C", readonly=True)

    class MappedFile(OSCacheManager):
        @property
        def state_type(self) -> Any:
            numbers = numba.uint64[::1]
            return numba.types.Tuple([read_only, numbers, numbers])

        def compile_reader(self) -> Any:
            def read(address: Any, state: Any) -> Any:
                file, pointers, sizes = state
                size = sizes[np.searchsorted(pointers, address)]
                return file[address : address + size]

            return Compiler.compile(read, read_only(numba.uint64, self.state_type))

    loader.OSCacheManager = MappedFile


def prepare(source: Path, out: Path) -> Path:
    resize.resize(find_source(source), out, plan.Options(jobs=1, max_rejects=0.0))
    stats.measure(out / "train", jobs=1)
    return out


def write_betons(prepared: Path, folder: Path) -> Path:
    for split in ("train", "val"):
        write.write_beton(prepared / split, folder / f"{split}.beton", "jpg", jobs=1)
    return folder


def told(
    monkeypatch: pytest.MonkeyPatch, benchmark: ModuleType, out: Path, *words: object
) -> dict[str, Any]:
    """What a benchmark, called with these words, writes into `out`."""
    monkeypatch.setattr(sys, "argv", ["x", *map(str, words), "--out", str(out)])
    benchmark.main()
    report: dict[str, Any] = json.loads(out.read_text())
    return report


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SRC/train and SRC/val, three classes. Not to be changed by a test."""
    return make_source(tmp_path_factory.mktemp("source") / "src")


@pytest.fixture(scope="session")
def prepared_set(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT/train and OUT/val with cards, manifests and statistics. Not to be changed by a test."""
    return prepare(source, tmp_path_factory.mktemp("prepared") / "out")


@pytest.fixture(scope="session")
def betons(prepared_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.beton and val.beton and what lies beside them. Not to be changed."""
    return write_betons(prepared_set, tmp_path_factory.mktemp("betons"))


# What class folders may be called: each is one class, and none may break a screen or a picture.
ODD_NAMES = (
    "two\nlines",
    "\x1b[31mred\x1b[0m",
    "bell\a and back\b\r",
    "$math$_{x}^2",
    "[bold]x[/bold]",
    ":smile:",
    "\N{GRINNING FACE}\N{ZERO WIDTH JOINER}\N{GRINNING FACE}",
    "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.x",
    "\N{LINE SEPARATOR}\N{NEXT LINE}\N{COMBINING ACUTE ACCENT}",
    "long " * 50,
)


@pytest.fixture
def copied(betons: Path, tmp_path: Path) -> Path:
    """A copy of the betons, for changing."""
    return Path(shutil.copytree(betons, tmp_path / "betons"))


@pytest.fixture(scope="session")
def run_folder(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, 18 pictures of three classes. Not to be changed by a test."""
    from train_program import ONE_THREAD, TINY, call

    out = tmp_path_factory.mktemp("trained") / "run"
    assert call("run", "--beton", betons / "train.beton", "--out", out, *TINY, *ONE_THREAD) == 0
    return out


@pytest.fixture(scope="module")
def threads_as_they_were() -> Iterator[None]:
    """torch's, which commands set."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread(threads_as_they_were: None) -> None:
    """For torch: sums in one order."""
    import torch

    del threads_as_they_were
    torch.set_num_threads(1)


def noise_images(count: int, side: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8 [count,side,side,3], every value equally likely."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 1 MiB, of 4 KiB blocks; skips where mounting is not permitted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip("mounting a small disk is not permitted")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill_disk(disk: Path, blocks_left: int) -> Path:
    """Write a file that leaves `blocks_left` blocks of 4 KiB free; returns it."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    free = shutil.disk_usage(disk).free
    filler.write_bytes(bytes(max(free - blocks_left * 4096, 0)))
    return filler
