"""Tables by class: they add up to the whole, and are what NumPy counts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train import by_class
from train.evaluate import Judged, score

WNIDS = ("n1", "n2", "n3", "n4")
NAMES = ("one, with a comma", 'two "quoted"', "drei Größen", "four")


def judged(labels: list[int], best: list[int]) -> Judged:
    generator = torch.Generator().manual_seed(len(labels))
    wrong = torch.tensor(labels) != torch.tensor(best)
    return Judged(
        labels=torch.tensor(labels),
        best=torch.tensor(best),
        top5_wrong=wrong & (torch.rand(len(labels), generator=generator) < 0.5),
        loss=torch.rand(len(labels), generator=generator) * 7,
    )


@pytest.fixture
def random() -> Judged:
    """200 samples of the first three classes; the fourth has none, but is guessed."""
    generator = np.random.default_rng(4)
    return judged(generator.integers(0, 3, 200).tolist(), generator.integers(0, 4, 200).tolist())


def read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_classes_add_up_to_the_whole(random: Judged, tmp_path: Path) -> None:
    by_class.write(tmp_path / "new" / "folder", random, WNIDS, NAMES)
    rows = [row for row in read(tmp_path / "new" / "folder" / "per_class.csv") if row["loss"]]
    whole = score(random)
    assert sum(int(row["samples"]) for row in rows) == whole.samples == 200
    for name in ("top1_error", "top5_error", "loss"):
        total = sum(int(row["samples"]) * float(row[name]) for row in rows)
        assert total / 200 == pytest.approx(getattr(whole, name), rel=1e-12)
    assert 0 < whole.top5_error < whole.top1_error < 1


def test_the_matrix_counts_each_sample_once(random: Judged) -> None:
    counted = np.zeros((4, 4), int)
    np.add.at(counted, (random.labels.numpy(), random.best.numpy()), 1)
    assert by_class.matrix(random, 4) == counted.tolist()
    wrong = {(true, taken): count for true, taken, count in by_class.confusions(random)}
    assert wrong == {
        (true, taken): int(counted[true, taken])
        for true in range(4)
        for taken in range(4)
        if true != taken and counted[true, taken]
    }


def test_each_class_is_its_own_samples(random: Judged, tmp_path: Path) -> None:
    by_class.write(tmp_path, random, WNIDS, NAMES)
    rows = read(tmp_path / "per_class.csv")
    figures = ["samples", "top1_error", "top5_error", "loss"]
    assert list(rows[0]) == ["label", "wnid", "name", *figures]
    assert [(row["label"], row["wnid"], row["name"]) for row in rows] == [
        (str(label), wnid, name)
        for label, (wnid, name) in enumerate(zip(WNIDS, NAMES, strict=True))
    ]
    for label, row in enumerate(rows[:3]):
        own = random.labels == label
        assert int(row["samples"]) == int(own.sum())
        for name, values in (
            ("top1_error", random.best != random.labels),
            ("top5_error", random.top5_wrong),
            ("loss", random.loss),
        ):
            assert float(row[name]) == pytest.approx(float(values[own].double().mean()), rel=1e-12)
    assert list(rows[3].values())[3:] == ["0", "", "", ""]


def test_confusions_are_the_wrong_ones_most_frequent_first(tmp_path: Path) -> None:
    pairs = [(0, 0)] * 5 + [(1, 2)] * 3 + [(0, 3)] + [(2, 1)] * 2 + [(0, 1)] * 2 + [(3, 3)]
    found = judged([label for label, _ in pairs], [best for _, best in pairs])
    assert by_class.confusions(found) == [(1, 2, 3), (0, 1, 2), (2, 1, 2), (0, 3, 1)]
    by_class.write(tmp_path, found, WNIDS, NAMES)
    rows = read(tmp_path / "confusions.csv")
    assert rows[0] == {
        "true": "n2",
        "predicted": "n3",
        "count": "3",
        "true_name": NAMES[1],
        "predicted_name": NAMES[2],
    }
    assert sum(int(row["count"]) for row in rows) == round(score(found).top1_error * len(pairs))


def test_categories_are_in_label_order(tmp_path: Path) -> None:
    by_class.write(tmp_path, judged([0], [0]), WNIDS, NAMES)
    lines = (tmp_path / "categories.csv").read_text(encoding="utf-8").splitlines()
    assert lines == [
        "label,wnid,name",
        '0,n1,"one, with a comma"',
        '1,n2,"two ""quoted"""',
        "2,n3,drei Größen",
        "3,n4,four",
    ]
    assert read(tmp_path / "confusions.csv") == []


def test_a_name_that_is_no_utf8_keeps_its_bytes(tmp_path: Path) -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    by_class.write(tmp_path, judged([0], [0]), [name], [name])
    assert (tmp_path / "categories.csv").read_bytes() == b"label,wnid,name\n0,caf\xe9,caf\xe9\n"
