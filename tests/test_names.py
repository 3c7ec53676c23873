"""Names of prepared files: plain, inside their class folder, and no two alike on any disk."""

from __future__ import annotations

import os
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.handover import UNLABELLED
from prep.names import NAME_BYTES, FileNames, class_folders, plain_name

# What an archive may hold: any characters, and bytes that are no UTF-8 as lone surrogates.
hostile = st.text(
    st.characters() | st.sampled_from("/\\.~\0\n" + os.fsdecode(b"\xff\xe9")), max_size=300
).filter(lambda name: not any(0xD800 <= ord(c) < 0xDC80 or 0xDD00 <= ord(c) < 0xE000 for c in name))


@given(hostile)
def test_any_name_becomes_one_plain_component(name: str) -> None:
    made = plain_name(name)
    assert made not in ("", ".", "..")
    assert not set(made) & set("/\\\0\n")
    assert 1 <= len(made.encode("utf-8")) <= NAME_BYTES
    assert os.path.normpath(os.path.join("class", made)).startswith("class" + os.sep)  # noqa: PTH118


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("n01440764_18.JPEG", "a/n01440764_18.JPEG"),
        ("train/x/Photo.JPG", "a/Photo.JPG"),
        ("../../etc/passwd", "a/passwd.jpg"),
        ("/etc/cron.d/x.jpg", "a/x.jpg"),
        ("..", "a/__.jpg"),
        ("..jpg", "a/..jpg.jpg"),
        ("", "a/_.jpg"),
        ("c:\\windows\\x.png", "a/c:_windows_x.png.jpg"),
        (os.fsdecode(b"caf\xe9.jpeg"), "a/caf\ufffd.jpeg"),
        ("e\u0301.jpg", "a/\u00e9.jpg"),
    ],
)
def test_names_that_were_thought_of(name: str, made: str) -> None:
    assert FileNames(("a",), whole_stem=False).add(0, name) == made


def test_names_alike_but_for_case_or_form_are_told_apart() -> None:
    given_names = FileNames(("a", "b"), whole_stem=False)
    names = ["x/1.jpg", "y/1.jpg", "1.JPG", "1~2.jpg", "Stra\u00dfe.jpg", "STRASSE.jpg"]
    made = [given_names.add(0, name) for name in names]
    assert made == [
        *("a/1.jpg", "a/1~2.jpg", "a/1~3.JPG", "a/1~2~2.jpg"),
        *("a/Stra\u00dfe.jpg", "a/STRASSE~2.jpg"),
    ]
    assert given_names.add(1, "1.jpg") == "b/1.jpg"
    assert given_names.add(UNLABELLED, "1.jpg") == "unlabelled/1.jpg"


@given(st.lists(hostile, max_size=8), st.booleans())
def test_no_two_are_alike_even_where_case_and_form_do_not_count(
    names: list[str], whole_stem: bool
) -> None:
    given_names = FileNames(("a",), whole_stem)
    made = [given_names.add(0, name) for name in names]
    keys = {unicodedata.normalize("NFC", name).casefold() for name in made}
    assert len(keys) == len(names)
    for name in made:
        folder, _, file = name.partition("/")
        assert folder == "a"
        assert "/" not in file
        assert len(file.encode()) <= 255
        if whole_stem:
            assert file.count(".") == 1
            assert file.endswith(".jpg")


def test_class_folders_alike_are_told_apart() -> None:
    assert class_folders(("Unlabelled", "a")) == ("Unlabelled~2", "a")
    assert class_folders(("Dog", "dog", "a/b", "..", "dog~2")) == (
        *("Dog", "dog~2", "a_b", "__", "dog~2~2"),
    )


def test_many_pictures_of_one_name_take_no_longer_each() -> None:
    given = FileNames(("a",), whole_stem=False)
    started = time.process_time()
    names = [given.add(0, f"{number}/image.jpg") for number in range(50_000)]
    assert time.process_time() - started < 10  # seconds; in a row of tries it would be an hour
    assert names[:3] == ["a/image.jpg", "a/image~2.jpg", "a/image~3.jpg"]
    assert len(set(names)) == len(names)
