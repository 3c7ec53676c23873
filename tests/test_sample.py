"""`prep sample`: the files it draws, that they follow from the seed alone, and what it refuses."""

from __future__ import annotations

import errno
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep import sample
from prep.drawing import draw
from prep.files import whole_folder
from prep.motifs import COLOURS, SHAPES, TEXTURES, recipes
from prep.program import UserError
from prep.sample import EXIF_ORIENTATION, SampleSummary, draw_sample

CLASSES, PER_CLASS, VAL_PER_CLASS = 4, 12, 2


def run(out: Path, seed: int = 0, jobs: int = 1, **counts: int) -> tuple[SampleSummary, int]:
    """Draw a small sample; gives the summary and the number of pictures reported."""
    reported = 0

    def report(done: int, rejected: int = 0) -> None:
        nonlocal reported
        assert rejected == 0
        reported += done

    sizes = {"classes": CLASSES, "per_class": PER_CLASS, "val_per_class": VAL_PER_CLASS} | counts
    return draw_sample(out, seed=seed, jobs=jobs, report=report, **sizes), reported


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample") / "deep" / "set"
    run(out)
    return out


def kind_of(path: Path) -> str:
    """What Pillow finds the file to be."""
    with Image.open(path) as image:
        try:
            image.load()
        except OSError:
            return "truncated"
        if image.format == "PNG":
            return "PNG"
        assert image.format == "JPEG"
        if image.getexif().get(EXIF_ORIENTATION) == 6:
            return "EXIF-rotated"
        return {"L": "grey", "CMYK": "CMYK", "RGB": ""}[image.mode]


def test_layout(drawn: Path) -> None:
    wnids = [f"n9000000{i}" for i in range(1, CLASSES + 1)]
    assert sorted(path.name for path in drawn.iterdir()) == ["train", "val", "words.txt"]
    for split, count in (("train", PER_CLASS), ("val", VAL_PER_CLASS)):
        assert sorted(path.name for path in (drawn / split).iterdir()) == wnids
        assert all(len(list((drawn / split / wnid).iterdir())) == count for wnid in wnids)
    assert (drawn / "train/n90000002/n90000002_1.JPEG").is_file()
    numbers = sorted(path.name for path in (drawn / "val").rglob("*.JPEG"))
    assert numbers == [f"SAMPLE_val_{i:08d}.JPEG" for i in range(1, CLASSES * VAL_PER_CLASS + 1)]
    names = [recipe.name for recipe in recipes(CLASSES)]
    lines = [f"{wnid}\t{name}\n" for wnid, name in zip(wnids, names, strict=True)]
    assert (drawn / "words.txt").read_text() == "".join(lines)
    assert not (drawn.parent / "set.partial").exists()


def test_odd_files_are_what_they_are_called(drawn: Path) -> None:
    found = Counter(kind_of(path) for path in (drawn / "train").rglob("*.JPEG"))
    assert found.pop("") == CLASSES * PER_CLASS - 5
    assert found == {"grey": 1, "CMYK": 1, "PNG": 1, "EXIF-rotated": 1, "truncated": 1}
    assert {kind_of(path) for path in (drawn / "val").rglob("*.JPEG")} == {""}


def test_odd_files_grow_with_the_sample() -> None:
    planned = sample._plan(Path("set"), classes=10, per_class=200, val_per_class=50, seed=0)
    kinds = Counter(picture.kind for picture in planned if picture.kind)
    assert kinds == {"grey": 20, "CMYK": 5, "PNG": 5, "EXIF-rotated": 5, "truncated": 1}
    assert all("train" in picture.path.parts for picture in planned if picture.kind)


def test_smallest_sample_has_every_kind(tmp_path: Path) -> None:
    summary, reported = run(tmp_path / "set", classes=2, per_class=4, val_per_class=1)
    odd = {"grey": 1, "CMYK": 1, "PNG": 1, "EXIF-rotated": 1, "truncated": 1}
    assert summary == SampleSummary(images=10, classes=2, odd=odd)
    assert reported == 10
    found = Counter(kind_of(path) for path in (tmp_path / "set/train").rglob("*.JPEG"))
    assert found == {**odd, "": 3}


def test_exif_rotation_shows_the_drawn_picture() -> None:
    pixels = draw(recipes(1)[0], np.random.default_rng(0))
    height, width, _ = pixels.shape
    encoded = sample._encode(pixels, "EXIF-rotated", np.random.default_rng(0))
    with Image.open(io.BytesIO(encoded)) as stored:
        assert stored.size == (height, width)
        upright = np.asarray(stored.transpose(Image.Transpose.ROTATE_270), np.float32)
    assert np.abs(upright - pixels).mean() < 8


def test_bytes_follow_from_the_seed_alone(drawn: Path, tmp_path: Path) -> None:
    run(tmp_path / "two", jobs=2)
    run(tmp_path / "other", seed=1)
    first, two, other = contents(drawn), contents(tmp_path / "two"), contents(tmp_path / "other")
    assert first == two
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name != "words.txt")


def test_sizes_vary(drawn: Path) -> None:
    shapes = set()
    for path in drawn.rglob("*.JPEG"):
        with Image.open(path) as image:
            shapes.add(image.size)
    assert len(shapes) > CLASSES * PER_CLASS // 2
    assert any(height > width for width, height in shapes)
    assert min(min(shape) for shape in shapes) < 200


def test_classes_share_attributes() -> None:
    ten = recipes(10)
    assert len({(r.shape, r.texture) for r in ten}) == 4  # what a grey copy leaves
    assert len({(r.colour, r.texture) for r in ten}) == 5  # what shuffled patches leave
    assert len({(r.shape, r.colour) for r in ten}) == 6  # what a blur leaves
    every = recipes(sample.LIMITS["classes"][1])
    assert len({recipe.name for recipe in every}) == sample.LIMITS["classes"][1]
    assert every[:10] == ten


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_fills_the_frame_but_not_all(shape: str) -> None:
    outline, hole = (np.array(points) for points in SHAPES[shape])
    for points in (outline, hole):
        assert points.size == 0 or np.hypot(*points.T).max() <= 1.35
    assert np.ptp(outline, axis=0).min() > 1.2


@pytest.mark.parametrize("texture", TEXTURES)
def test_every_texture_draws_a_pattern(texture: str) -> None:
    u, v = np.meshgrid(np.arange(200, dtype=np.float32) / 20, np.arange(200, dtype=np.float32) / 20)
    pattern = TEXTURES[texture](u, v, 20)
    assert pattern.shape == (200, 200)
    assert pattern.dtype == np.float32
    assert pattern.min() >= 0
    assert pattern.max() <= 1
    assert 0.1 < pattern.mean() < 0.8 or texture == "plain"


def test_channel_exchange_maps_colours_onto_colours() -> None:
    assert {(240 - hue) % 360 for hue in COLOURS.values()} == set(COLOURS.values())


def test_used_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/note").write_text("mine")
    with pytest.raises(UserError, match=r"set exists and is not empty; give a new folder"):
        run(tmp_path / "set")
    with pytest.raises(UserError, match=r"note is a file; give a new folder"):
        run(tmp_path / "set/note")
    assert contents(tmp_path) == {"set/note": b"mine"}


def test_empty_folder_is_taken_and_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set.partial/train/n1").mkdir(parents=True)
    (tmp_path / "set.partial/train/n1/left.JPEG").write_bytes(b"left")
    (tmp_path / "set.partial/words.txt").write_text("left")
    run(tmp_path / "set", classes=2, per_class=4)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert not list(tmp_path.rglob("left.JPEG"))


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    def report(done: int, rejected: int = 0) -> None:
        raise KeyboardInterrupt(done, rejected)

    with pytest.raises(KeyboardInterrupt):
        draw_sample(tmp_path / "set", 2, 4, 1, 0, 1, report)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_by_the_folder_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")  # as write(2) has it: no name

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as caught:
        run(tmp_path / "set")
    assert caught.value.filename == str(tmp_path / "set")


def test_second_writer_is_refused(tmp_path: Path) -> None:
    with (
        whole_folder(tmp_path / "set") as partial,
        pytest.raises(UserError, match="another run"),
    ):
        run(tmp_path / "set")
    assert partial == tmp_path / "set.partial"
    assert (tmp_path / "set").is_dir()


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot write .*Not a directory; give a folder"):
        run(tmp_path / "file/set")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"classes": 1}, r"--classes is 1; give a number from 2 to 1000"),
        ({"classes": 1001}, r"--classes is 1001; give a number from 2 to 1000"),
        ({"per_class": 3}, r"--per-class is 3; give a number from 4 to 10000"),
        ({"val_per_class": 0}, r"--val-per-class is 0; give a number from 1 to 10000"),
        ({"seed": -1}, r"seed is -1; give 0 or more"),
    ],
)
def test_bad_counts_are_named(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path / "set", **counts)
    assert not list(tmp_path.iterdir())
