"""benchmarks/bench_step.py and profile_step.py: what they tell of a narrow network's step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import told

from benchmarks import bench_step, profile_step
from train import bench, networks
from train.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("threads_as_they_were")


def test_a_step_beside_a_write_ups_and_the_floor(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [betons / "train.beton", "--set", "width=0.05", "--batch", 8, 4, "--workers", 1]
    report = told(
        monkeypatch, bench_step, tmp_path / "x.json", *asked, "--rounds", 2, "--seconds", 0.02
    )
    assert report["machine"]["device"] == "cpu"
    assert report["recipe"] == ["paper", "width=0.05"]
    assert [row["batch"] for row in report["rows"]] == [8, 4]
    for row in report["rows"]:
        rates, floor = row["images/s"], row["floor"]
        assert set(rates) == {"loader", "step", "both", bench_step.WRITE_UP}
        ratio = row["step / a write-up's"]
        assert 0 < ratio["lowest"] <= ratio["median"] <= ratio["highest"]
        assert floor["images/s at most"] > 0
    eight, four = (row["floor"]["operations, 1e9"] for row in report["rows"])
    assert eight == pytest.approx(2 * four, abs=0.02)


def test_the_floor_counts_the_papers_multiplications() -> None:
    """Figure 2's layers, at their sizes, conv2, conv4 and conv5 of half the maps before them."""
    layers = (
        55 * 55 * 96 * 11 * 11 * 3,
        27 * 27 * 256 * 5 * 5 * 48,
        13 * 13 * 384 * 3 * 3 * 256,
        13 * 13 * 384 * 3 * 3 * 192,
        13 * 13 * 256 * 3 * 3 * 192,
        9216 * 4096,
        4096 * 4096,
        4096 * 1000,
    )
    with torch.device("meta"):
        network = networks.without_weights(load_recipe("paper"), 1000)
        assert bench_step.operations(network, 224) == 2 * (3 * sum(layers) - layers[0])


def test_the_floor_is_of_a_batch_and_an_update() -> None:
    recipe = load_recipe("paper", ["width=0.05"])
    one, three = (
        bench_step.floor(recipe, 10, bench.Way(batch, "float32", "eager"), torch.device("cpu"))
        for batch in (100, 300)
    )
    assert three["operations, 1e9"] == pytest.approx(3 * one["operations, 1e9"], abs=0.02)
    network = networks.build(recipe, 10)
    moved = sum(p.numel() for p in network.parameters()) * 32 / 1e9
    assert one["bytes of the update, 1e9"] == pytest.approx(moved, abs=0.0006)


def test_the_write_ups_net_is_the_single_tower_of_62_million_parameters() -> None:
    with torch.device("meta"):
        net = bench_step.write_up(1000, 1.0)
        assert sum(p.numel() for p in net.parameters()) == 62_378_344
        assert net(torch.zeros(2, 3, 227, 227)).shape == (2, 1000)


def test_a_profile_tells_operations_by_their_time(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [betons / "train.beton", "--set", "width=0.05", "--batch", 8, "--workers", 1]
    report = told(
        monkeypatch, profile_step, tmp_path / "x.json", *asked, "--steps", 2, "--most", 1000
    )
    rows = report["operations"]
    assert sum(row["share"] for row in rows) == pytest.approx(1, abs=0.02)
    times = [row["ms a step"] for row in rows]
    assert times == sorted(times, reverse=True)
    maps = networks.build(load_recipe("paper", ["width=0.05"]), 10).conv1.out_channels
    conv1 = [row for row in rows if f"{maps}x3x11x11" in row["shapes"]]
    forward = [row for row in conv1 if row["operation"] == "aten::mkldnn_convolution"]
    assert [row["a step"] for row in forward] == [1.0]
