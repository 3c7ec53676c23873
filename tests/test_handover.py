"""What prep hands over: cards, records, statistics, pixels_id."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import json
import os
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prep import files, handover, locks, npz, program
from prep.handover import (
    Card,
    ClassEntry,
    Records,
    Statistics,
    pixels_id,
    read_card,
    read_records,
    read_statistics,
    write_card,
    write_records,
    write_statistics,
)
from prep.program import UserError

IN_ONE_FOLDER = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def some_card(**changes: object) -> Card:
    card = Card(
        split="train",
        samples=5,
        classes=(ClassEntry("n1", "tench, Tinca tinca", 2), ClassEntry("n2", "Grünfink", 3)),
        side=256,
        mode="jpg",
        quality=95,
        filter="bilinear",
        backend="turbo",
        fit="crop",
        exif="ignore",
        source="0" * 64,
        pixels_id="1" * 64,
        sha256=None,
        tools={"prep": "0.1.0"},
    )
    return dataclasses.replace(card, **changes)  # type: ignore[arg-type]


def some_statistics(side: int = 4) -> Statistics:
    generator = np.random.default_rng(1)
    return Statistics(
        count=3,
        mean_image=generator.random((side, side, 3), np.float32),
        channel_mean=generator.random(3),
        covariance=generator.random((3, 3)),
        eigenvalues=np.array([3.0, 2.0, -1e-13]),
        eigenvectors=np.eye(3),
        decoder="libjpeg-turbo, fast DCT (simplejpeg 1)",
        pixels_id="ab" * 32,
    )


def some_records() -> Records:
    return Records(
        ptr=np.array([8, 2**63 + 5], np.uint64),
        size=np.array([3, 4], np.uint64),
        crc32=np.array([0, 2**32 - 1], np.uint32),
    )


# --------------------------------------------------------------------------- card

texts = st.text(max_size=12)
cards = st.builds(
    Card,
    split=texts,
    samples=st.integers(0, 2**40),
    classes=st.lists(st.builds(ClassEntry, texts, texts, st.integers(0, 2**40)), max_size=4).map(
        tuple
    ),
    side=st.integers(1, 4096),
    mode=st.sampled_from(["jpg", "raw"]),
    quality=st.integers(1, 100),
    filter=texts,
    backend=texts,
    fit=texts,
    exif=texts,
    source=texts,
    pixels_id=texts,
    sha256=st.none() | texts,
    tools=st.dictionaries(texts, texts, max_size=3),
    order=texts,
    seed=st.none() | st.integers(0, 2**64),
    records_sha256=st.none() | texts,
)


@IN_ONE_FOLDER
@given(card=cards)
def test_a_card_reads_back_equal(tmp_path: Path, card: Card) -> None:
    write_card(card, tmp_path / "card.json")
    assert read_card(tmp_path / "card.json") == card


def test_equal_cards_are_equal_bytes(tmp_path: Path) -> None:
    write_card(some_card(tools={"a": "1", "b": "2"}), tmp_path / "1.json")
    write_card(some_card(tools={"b": "2", "a": "1"}), tmp_path / "2.json")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_class_names_are_in_label_order() -> None:
    assert some_card().class_names == ["tench, Tinca tinca", "Grünfink"]


def test_a_missing_card_says_which_command_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"card.json is missing.*prep write-beton"):
        read_card(tmp_path / "card.json")


@pytest.mark.parametrize("version", [0, 2, 4, None, "3"])
def test_a_card_of_another_version_is_refused(tmp_path: Path, version: object) -> None:
    values = dataclasses.asdict(some_card()) | {"format_version": version}
    (tmp_path / "card.json").write_text(json.dumps(values))
    said = f"format version {version}, this program reads 3" if version is not None else "no card"
    with pytest.raises(UserError, match=said):
        read_card(tmp_path / "card.json")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"null"])
def test_what_is_no_card_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "card.json").write_bytes(text)
    with pytest.raises(UserError, match=r"card\.json"):
        read_card(tmp_path / "card.json")


@pytest.mark.parametrize("change", ["lacks", "adds", "classes"])
def test_a_card_with_other_fields_is_refused(tmp_path: Path, change: str) -> None:
    values = dataclasses.asdict(some_card())
    if change == "lacks":
        del values["side"]
    elif change == "adds":
        values["more"] = 1
    else:
        values["classes"] = [{"wnid": "n1"}]
    values["checksum"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    text = json.dumps(values, indent=1, sort_keys=True) + "\n"
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(UserError, match=r"card\.json is not a whole card"):
        read_card(tmp_path / "card.json")


def test_a_flipped_bit_anywhere_in_a_card_is_found(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    write_card(some_card(), path)
    data = path.read_bytes()
    bits = np.random.default_rng(0).integers(8, size=len(data)).tolist()
    for place, bit in [*enumerate(bits), *((place, 5) for place in range(len(data)))]:
        changed = bytearray(data)
        changed[place] ^= 1 << bit  # bit 5: another case, which JSON's escapes do not mind
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"card\.json"):
            read_card(path)


def test_a_card_that_was_edited_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    write_card(some_card(), path)
    path.write_text(path.read_text().replace("tench", "perch"))
    with pytest.raises(UserError, match=r"not as it was written \(its checksum differs\); copy"):
        read_card(path)


# --------------------------------------------------------------------------- pixels_id

pairs = st.lists(st.tuples(st.integers(0, 2**40), st.binary(min_size=32, max_size=32)), max_size=20)


def id_of(labelled: list[tuple[int, bytes]]) -> str:
    labels = np.array([label for label, _ in labelled], np.int64)
    digests = np.frombuffer(b"".join(digest for _, digest in labelled), np.uint8).reshape(-1, 32)
    return pixels_id(labels, digests)


@given(labelled=pairs)
def test_pixels_id_is_the_sha256_over_the_sorted_pairs(labelled: list[tuple[int, bytes]]) -> None:
    ordered = sorted(label.to_bytes(8, "big") + digest for label, digest in labelled)
    assert id_of(labelled) == hashlib.sha256(b"".join(ordered)).hexdigest()


@given(labelled=pairs, seed=st.integers(0, 99))
def test_pixels_id_does_not_depend_on_order(labelled: list[tuple[int, bytes]], seed: int) -> None:
    shuffled = labelled.copy()
    random.Random(seed).shuffle(shuffled)
    assert id_of(shuffled) == id_of(labelled)


def test_pixels_id_changes_with_a_label_a_picture_and_their_pairing() -> None:
    a, b, c = b"a" * 32, b"b" * 32, b"c" * 32
    ids = [
        id_of([(0, a), (1, b)]),
        id_of([(0, b), (1, a)]),
        id_of([(0, a), (2, b)]),
        id_of([(0, a), (1, c)]),
        id_of([(0, a), (1, b), (1, b)]),
    ]
    assert len(set(ids)) == len(ids)


# --------------------------------------------------------------------------- npz files


def test_records_read_back_equal(tmp_path: Path) -> None:
    write_records(some_records(), tmp_path / "x.records.npz")
    read = read_records(tmp_path / "x.records.npz")
    for field in dataclasses.fields(Records):
        before, after = getattr(some_records(), field.name), getattr(read, field.name)
        assert after.dtype == before.dtype
        assert np.array_equal(after, before)


def test_statistics_read_back_equal(tmp_path: Path) -> None:
    write_statistics(some_statistics(), tmp_path / "x.stats.npz")
    read = read_statistics(tmp_path / "x.stats.npz")
    for field in dataclasses.fields(Statistics):
        before, after = getattr(some_statistics(), field.name), getattr(read, field.name)
        assert np.array_equal(after, before)
        assert type(after) is type(before)
        assert getattr(after, "dtype", None) == getattr(before, "dtype", None)
    assert read.side == 4


def floats(dtype: type[np.floating], *shape: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(dtype, shape, elements={"allow_nan": False})


words = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
statistics = st.builds(
    Statistics,
    count=st.integers(1, 2**40),
    mean_image=st.integers(1, 5).flatmap(lambda side: floats(np.float32, side, side, 3)),
    channel_mean=floats(np.float64, 3),
    covariance=floats(np.float64, 3, 3),
    eigenvalues=floats(np.float64, 3),
    eigenvectors=floats(np.float64, 3, 3),
    decoder=words,
    pixels_id=words,
)


@IN_ONE_FOLDER
@given(before=statistics)
def test_any_statistics_read_back_equal(tmp_path: Path, before: Statistics) -> None:
    write_statistics(before, tmp_path / "x.npz")
    after = read_statistics(tmp_path / "x.npz")
    for field in dataclasses.fields(Statistics):
        assert np.array_equal(getattr(after, field.name), getattr(before, field.name))


def test_a_tiny_negative_eigenvalue_has_deviation_zero() -> None:
    assert some_statistics().standard_deviations.tolist() == [3**0.5, 2**0.5, 0.0]


def test_an_npz_holds_no_time_of_day(tmp_path: Path) -> None:
    write_statistics(some_statistics(), tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_statistics_of_another_version_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "STATISTICS_VERSION", 7)
    write_statistics(some_statistics(), tmp_path / "x.npz")
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"format version 7, this program reads 4.*prep stats"):
        read_statistics(tmp_path / "x.npz")


def test_statistics_without_a_checksum_are_of_an_older_version_or_not_as_written(
    tmp_path: Path,
) -> None:
    values = dataclasses.asdict(some_statistics())
    for version, said in ((3, "has format version 3, this program reads 4"), (4, "not as it was")):
        np.savez(tmp_path / "x.npz", format_version=version, **values)
        with pytest.raises(UserError, match=said):
            read_statistics(tmp_path / "x.npz")


@pytest.mark.parametrize("read", [read_records, read_statistics])
def test_a_missing_npz_says_the_next_step(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match=r"x\.npz is missing; .*prep"):
        read(tmp_path / "x.npz")


@pytest.mark.parametrize("read", [read_records, read_statistics])
@pytest.mark.parametrize("data", [b"", b"garbage", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_what_is_no_npz_is_refused(
    tmp_path: Path, read: Callable[[Path], object], data: bytes
) -> None:
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.npz"):
        read(tmp_path / "x.npz")


@pytest.mark.parametrize("read", [read_records, read_statistics])
def test_an_npz_of_something_else_is_refused(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    np.savez(tmp_path / "x.npz", other=np.arange(3))
    with pytest.raises(UserError, match=r"x\.npz lacks"):
        read(tmp_path / "x.npz")


def equal(before: object, after: object) -> bool:
    """Whether two records or statistics have the same values, shapes and dtypes."""
    pairs = [(getattr(before, f.name), getattr(after, f.name)) for f in dataclasses.fields(before)]  # type: ignore[arg-type]
    return all(
        a.dtype == b.dtype and np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
        for a, b in pairs
    )


def test_records_cut_or_flipped_anywhere_are_refused_or_equal(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_records(some_records(), path)
    data = path.read_bytes()
    generator = np.random.default_rng(3)
    for turn in range(400):
        changed = bytearray(data)
        changed[generator.integers(len(data))] ^= 1 << generator.integers(8)
        path.write_bytes(changed[: generator.integers(len(data))] if turn % 4 == 0 else changed)
        with contextlib.suppress(UserError):
            assert equal(read_records(path), some_records())


LARGER = 32  # pixels: below some 20 a zip's reader has all of a mean image at once, and its crc32


def test_a_flipped_bit_anywhere_in_statistics_is_refused_or_makes_no_difference(
    tmp_path: Path,
) -> None:
    """A zip keeps dates and the like beside the arrays, which nobody reads."""
    path = tmp_path / "x.npz"
    write_statistics(some_statistics(LARGER), path)
    data, refused = path.read_bytes(), 0
    header = data.index(b"\x93NUMPY", data.index(b"mean_image.npy"))
    shape = data.index(b"(32, 32, 3)", header)
    generator = np.random.default_rng(3)
    places = [*range(header, header + 128), *generator.integers(len(data), size=150).tolist()]
    flips = [(place, int(generator.integers(8))) for place in places]
    flips += [(place, bit) for place in range(shape, shape + 11) for bit in range(8)]
    for place, bit in flips:
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        try:
            assert equal(read_statistics(path), some_statistics(LARGER)), (place, bit)
        except UserError:
            refused += 1
    assert refused > 0.8 * len(flips)


@pytest.mark.parametrize("shape", [b"(12, 32, 3)", b"(32, 32, 1)", b"(00, 32, 3)"])
def test_statistics_with_another_shape_in_their_header_are_refused(
    tmp_path: Path, shape: bytes
) -> None:
    """Fewer bytes than there are: the zip's own checksum is never compared."""
    path = tmp_path / "x.npz"
    write_statistics(some_statistics(LARGER), path)
    path.write_bytes(path.read_bytes().replace(b"(32, 32, 3)", shape))
    with pytest.raises(
        UserError, match=r"its checksum differs\); copy it again, or run `prep stat"
    ):
        read_statistics(path)


def test_records_with_another_shape_in_a_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    numbers = np.arange(5000, dtype=np.uint64)
    write_records(Records(numbers, numbers, numbers.astype(np.uint32)), path)
    data = path.read_bytes()
    place = data.index(b"(5000,)", data.index(b"crc32.npy"))
    path.write_bytes(data[:place] + b"(1000,)" + data[place + 7 :])
    with pytest.raises(UserError, match="its arrays differ in length"):
        read_records(path)


@pytest.mark.parametrize("read", [read_card, read_records, read_statistics])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_named_and_keeps_nobody_waiting(
    tmp_path: Path, read: Callable[[Path], object], kind: str
) -> None:
    path = tmp_path / "x"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(UserError, match=rf"{path} .*it is a {kind}, not a regular file\); "):
        read(path)


def test_statistics_of_other_data_are_told_from_a_card_s_own(tmp_path: Path) -> None:
    write_statistics(some_statistics(), tmp_path / "x.npz")
    card = some_card(pixels_id="ab" * 32)
    assert equal(handover.read_statistics_of(card, tmp_path / "x.npz"), some_statistics())
    with pytest.raises(UserError, match=r"x\.npz is of other data \(pixels_id abab.*says 1111"):
        handover.read_statistics_of(some_card(), tmp_path / "x.npz")


def test_the_companions_are_named_after_the_beton() -> None:
    beton = Path("d/train.v2.beton")
    assert handover.card_path(beton) == Path("d/train.v2.json")
    assert handover.records_path(beton) == Path("d/train.v2.records.npz")
    assert handover.stats_path(beton) == Path("d/train.v2.stats.npz")


# --------------------------------------------------------------------------- what it imports


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        (handover, {"numpy", "prep", "prep.files", "prep.program"}),
        (npz, {"numpy", "prep.files", "prep.program"}),
        (files, {"prep.locks", "prep.program"}),
        (locks, {"prep.program"}),
        (program, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_beside_the_standard_library_it_imports_at_most(
    module: ModuleType, allowed: set[str]
) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module))
    named = {name.removesuffix(".typing") for name in imported}
    assert {name for name in named if name.split(".")[0] not in sys.stdlib_module_names} <= allowed
