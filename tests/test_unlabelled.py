"""A test split whose labels nobody published, from the source to the beton."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, small_jpeg

from prep import verify, write
from prep.beton import open_beton
from prep.handover import UNLABELLED, read_card
from prep.images import Settings
from prep.plan import Options
from prep.program import UserError
from prep.resize import resize
from prep.sheet import beton_sheet
from prep.sources import find_source
from train.dataset import open_dataset


@pytest.fixture(scope="module", params=["tree", "tar"])
def beton(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unlabelled")
    for name in CLASSES:
        (folder / "src" / "train" / name).mkdir(parents=True)
        shutil.copy(__file__, folder / "src" / "train" / name / "note.txt")
        (folder / "src" / "train" / name / "1.jpg").write_bytes(small_jpeg(1))
    (folder / "src" / "test").mkdir()
    for number in range(4):
        (folder / "src" / "test" / f"{number}.jpg").write_bytes(small_jpeg(number))
    options = Options(Settings(side=32), layout=request.param, jobs=1)
    resize(find_source(folder / "src", ("test",)), folder / "out", options)
    write.write_beton(folder / "out" / "test", folder / "test.beton", "jpg", jobs=1)
    return folder / "test.beton"


def test_it_is_prepared_written_verified_and_shown(beton: Path) -> None:
    card = read_card(beton.with_suffix(".json"))
    assert (card.split, card.samples, card.labelled) == ("test", 4, False)
    assert {entry.samples for entry in card.classes} == {0}
    assert card.name_of(UNLABELLED) == "no label"
    opened = open_beton(beton)
    assert opened.labels.tolist() == [UNLABELLED] * 4
    assert verify.verify(beton, jobs=1) == card
    assert beton_sheet(opened, card).size[0] > 0


def test_a_label_that_crept_in_is_noticed(beton: Path, tmp_path: Path) -> None:
    for path in beton.parent.glob("test.*"):
        if path.is_file():
            shutil.copy(path, tmp_path)
    copy = tmp_path / beton.name
    data = bytearray(copy.read_bytes())
    place = data.index(np.int64(UNLABELLED).tobytes())
    data[place : place + 8] = np.int64(0).tobytes()
    copy.write_bytes(data)
    with pytest.raises(UserError, match=r"metadata of sample 0: label is 0, by card .* -1"):
        verify.verify(copy, jobs=1)


def test_nothing_is_trained_or_judged_on_it(beton: Path) -> None:
    with pytest.raises(UserError, match="is a test split without labels"):
        open_dataset(beton)


def test_a_labelled_split_has_no_picture_without_label(prepared_set: Path) -> None:
    card = read_card(prepared_set / "train.json")
    assert card.labelled
    for label in (UNLABELLED, len(CLASSES)):
        with pytest.raises(IndexError):
            card.name_of(label)
