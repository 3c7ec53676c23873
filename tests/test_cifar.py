"""CIFAR-10's pickles: the right pixels and labels, and nothing in a pickle is run."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from prep.program import UserError
from prep.sources import find_source
from prep.sources.listing import Source

CLASSES = [b"airplane", b"automobile", b"bird"]


def as_python_2_did(value: Any) -> bytes:
    """Protocol 2 with byte strings for keys, as in the distributed files."""

    class Python2(pickle._Pickler):
        def save_as_short_string(self, text: bytes) -> None:
            self.write(
                pickle.SHORT_BINSTRING + bytes([len(text)]) + text
                if len(text) < 256
                else pickle.BINSTRING + len(text).to_bytes(4, "little") + text
            )
            self.memoize(text)

        dispatch: ClassVar[dict[type, Any]] = {
            **pickle._Pickler.dispatch,
            bytes: save_as_short_string,
        }

    out = io.BytesIO()
    Python2(out, 2).dump(value)
    return out.getvalue()


def pixels(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_cifar(root: Path, per_batch: int = 4) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "batches.meta").write_bytes(as_python_2_did({b"label_names": CLASSES}))
    for seed, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        batch = {
            b"data": pixels(per_batch, seed),
            b"labels": [(seed + n) % 3 for n in range(per_batch)],
            b"filenames": [b"%d_%d.png" % (seed, n) for n in range(per_batch)],
        }
        (folder / name).write_bytes(as_python_2_did(batch))
    return root


def read_all(source: Source, split: str) -> list[tuple[str, int, bytes | None]]:
    part = source.splits[split]
    return [(p.name, p.label, p.data) for p in part.read(source.root, part.listing)]


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py"])
def test_every_row_is_a_picture(tmp_path: Path, below: str) -> None:
    source = find_source(write_cifar(tmp_path) / below)
    assert source.classes == ("airplane", "automobile", "bird")
    assert list(source.splits) == ["train", "test"]
    found = read_all(source, "train")
    assert len(found) == 20
    for number, (name, label, data) in enumerate(found):
        seed, row = divmod(number, 4)
        assert name.endswith(f"data_batch_{seed + 1}/{seed}_{row}.png")
        assert label == (seed + row) % 3
        assert data is not None
        with Image.open(io.BytesIO(data)) as picture:
            planes = pixels(4, seed)[row].reshape(3, 32, 32)
            assert np.array_equal(np.asarray(picture), planes.transpose(1, 2, 0))


def test_a_part_is_read_alone(tmp_path: Path) -> None:
    source = find_source(write_cifar(tmp_path))
    train = source.splits["train"]
    some = list(train.read(tmp_path, train.listing.part(3, 6)))
    assert [(p.name, p.label, p.data) for p in some] == read_all(source, "train")[3:6]


def test_the_fingerprint_changes_with_a_pixel(tmp_path: Path) -> None:
    source = find_source(write_cifar(tmp_path))
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    data, pixel = path.read_bytes(), pixels(4, 1)[2].tobytes()
    path.write_bytes(data.replace(pixel, bytes(3072)))
    changed = find_source(tmp_path)
    assert changed.fingerprint("train") != source.fingerprint("train")
    assert changed.fingerprint("test") == source.fingerprint("test")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil",)


class Huge:
    """An array that claims a terabyte."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np._core.multiarray._reconstruct, (np.ndarray, (1 << 40,), "b")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Evil(), r"it asks for (posix|nt)\.system"),
        (Huge(), "begins otherwise"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "is no batch of CIFAR-10"),
        ({b"data": np.zeros((2, 3071), np.uint8)}, "is no batch of CIFAR-10"),
        ({b"data": 3}, "is no batch of CIFAR-10"),
        (
            {b"data": np.zeros((1, 3072), np.uint8), b"labels": [9], b"filenames": [b"x"]},
            "is no batch of CIFAR-10",
        ),
        (
            {b"data": np.zeros((1, 3072), np.uint8), b"labels": [0], b"filenames": [[b"x"]]},
            "is no batch of CIFAR-10",
        ),
        ({b"data": np.array(7, np.uint8), b"labels": [], b"filenames": []}, "is no batch of CIFAR"),
        ({b"data": np.zeros(3072, np.uint8), b"labels": [0]}, "is no batch of CIFAR-10"),
        ([1, 2], "holds no dictionary"),
    ],
)
def test_a_batch_of_anything_else_is_refused_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path)
    data = pickle.dumps(value, 2) if isinstance(value, (Evil, Huge)) else as_python_2_did(value)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(data)
    with pytest.raises(UserError, match=message):
        find_source(tmp_path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("names", [None, [], 5, b"abc", np.arange(3), [b"a", 1], {b"a": 1}])
def test_odd_class_names_are_refused(tmp_path: Path, names: object) -> None:
    write_cifar(tmp_path)
    meta = tmp_path / "cifar-10-batches-py" / "batches.meta"
    meta.write_bytes(as_python_2_did({b"label_names": names}))
    with pytest.raises(UserError, match=r"batches\.meta holds no label_names; unpack"):
        find_source(tmp_path)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    batch = {b"data": pixels(2, 0), b"labels": [0, 1], b"filenames": ["\ud800.png", b"\xff.png"]}
    (folder / "test_batch").write_bytes(as_python_2_did(batch))
    source = find_source(tmp_path)
    names = [os.fsencode(name) for name in source.splits["test"].listing.names]
    assert [name.rpartition(b"/")[2] for name in names] == [b"\xed\xa0\x80.png", b"\xff.png"]
    assert len(source.fingerprint("test")) == 64
    (folder / "batches.meta").write_bytes(as_python_2_did({b"label_names": ["a", "\ud800", "c"]}))
    with pytest.raises(UserError, match=r"has a class '.*', a name that is not UTF-8; rename it"):
        find_source(tmp_path)


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x80\x05.", b"(" * 10_000])
def test_garbage_is_refused(tmp_path: Path, data: bytes) -> None:
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(data)
    with pytest.raises(UserError, match=r"test_batch .*unpack the archive again"):
        find_source(tmp_path)


def test_the_packed_archive_says_how_to_unpack_it(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"has to be unpacked first: tar -xzf"):
        find_source(tmp_path)


def test_a_pickle_whose_values_are_endless_to_print_is_refused_at_once(tmp_path: Path) -> None:
    nested: Any = ()
    for _ in range(60):
        nested = (nested, nested)  # 2**60 brackets
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    class Evil:
        def __reduce__(self) -> Any:
            return np.zeros(1).__reduce__()[0], (np.ndarray, nested, b"b")

    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": Evil()}))
    with pytest.raises(UserError, match="begins otherwise than numpy's do"):
        find_source(tmp_path)
