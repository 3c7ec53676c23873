"""Checkpoints: what is saved comes back, what is none is refused, nothing in one is executed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_checkpoint

from prep.program import UserError
from train import __version__, networks
from train import checkpoint as checkpoints
from train.checkpoint import Checkpoint
from train.recipe import LayerRate, Recipe, load_recipe
from train.resume import check_resumable


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    rates = 'layer_rates=[{layer="conv1", from_epoch=3, rate=0.0}]'
    return load_recipe("demo", ["width=0.02", "drop_epochs=[3, 4]", rates])


@pytest.fixture(scope="module")
def whole(recipe: Recipe) -> Checkpoint:
    return make_checkpoint(recipe)


@pytest.fixture
def saved(whole: Checkpoint, tmp_path: Path) -> Path:
    path = tmp_path / "run" / "last.pt"
    path.parent.mkdir()
    checkpoints.save(whole, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        checkpoints.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_what_is_saved_comes_back(saved: Path, whole: Checkpoint) -> None:
    loaded = checkpoints.load(saved)
    for name in ("recipe", "epoch", "step", "history", "threads"):
        assert getattr(loaded, name) == getattr(whole, name)
    assert loaded.data.mean_image.dtype == torch.float32
    assert torch.equal(loaded.data.mean_image, whole.data.mean_image)
    plain = dataclasses.replace(loaded.data, mean_image=whole.data.mean_image)
    assert plain == whole.data
    assert list(loaded.network) == list(whole.network)
    assert all(torch.equal(loaded.network[name], whole.network[name]) for name in whole.network)
    old, new = whole.optimiser["state"], loaded.optimiser["state"]
    assert len(old) == len(new) > 0
    assert all(torch.equal(old[n]["momentum_buffer"], new[n]["momentum_buffer"]) for n in old)
    assert loaded.optimiser["param_groups"] == whole.optimiser["param_groups"]


def test_a_run_folder_or_its_file(saved: Path) -> None:
    assert checkpoints.load(saved.parent).step == checkpoints.load(saved).step == 12


def test_saving_leaves_one_file_and_replaces_the_old_one(saved: Path, whole: Checkpoint) -> None:
    checkpoints.save(dataclasses.replace(whole, epoch=4), saved)
    assert checkpoints.load(saved).epoch == 4
    assert [path.name for path in saved.parent.iterdir()] == ["last.pt"]


def test_a_failed_save_leaves_the_old_one(
    saved: Path, whole: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_values: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(dataclasses.replace(whole, epoch=4), saved)
    assert checkpoints.load(saved).epoch == 3
    assert [path.name for path in saved.parent.iterdir()] == ["last.pt"]


def test_the_trained_network_has_the_trained_weights(saved: Path, whole: Checkpoint) -> None:
    network = checkpoints.trained_network(checkpoints.load(saved), saved)
    assert not network.training
    state = network.state_dict()
    assert all(torch.equal(state[name], whole.network[name]) for name in whole.network)


def test_initial_weights_follow_from_the_seed(recipe: Recipe) -> None:
    def weights(seed: int) -> torch.Tensor:
        changed = dataclasses.replace(recipe, seed=seed)
        return networks.build(changed, 2).fc8.weight.detach()

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_weights_of_another_network_are_refused(whole: Checkpoint) -> None:
    wide = dataclasses.replace(whole, recipe=dataclasses.replace(whole.recipe, width=0.5))
    other_norm = dataclasses.replace(
        whole, recipe=dataclasses.replace(whole.recipe, network="paper")
    )
    more = dataclasses.replace(whole.data, wnids=[*"abc"], names=[*"abc"], pixels_id="")
    for changed in (wide, other_norm, dataclasses.replace(whole, data=more)):
        with pytest.raises(UserError) as caught:
            checkpoints.trained_network(changed, Path("runs/x"))
        assert "runs/x holds the weights of another network" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_checkpoint_names_the_file_and_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "--out folder" in refusal(tmp_path / "absent")
    with pytest.raises(UserError, match=r"last\.pt does not exist"):
        checkpoints.load(tmp_path / "empty")


def test_a_file_cut_anywhere_is_refused(saved: Path) -> None:
    data = saved.read_bytes()
    for length in (0, 1, 2, 10, 100, len(data) // 2, len(data) - 100, len(data) - 1):
        saved.write_bytes(data[:length])
        refusal(saved)


def test_flipped_bytes_are_refused(saved: Path) -> None:
    """torch's archives hold a crc32 of every tensor, which torch.load itself does not look at."""
    data = saved.read_bytes()
    generator = random.Random(0)
    unnoticed = 0
    for position in (generator.randrange(len(data)) for _ in range(60)):
        saved.write_bytes(data[:position] + bytes([data[position] ^ 0x41]) + data[position + 1 :])
        with contextlib.suppress(UserError):
            checkpoints.load(saved)
            unnoticed += 1
    assert unnoticed < 10  # zeros between the records


def test_a_flipped_bit_of_a_weight_is_refused(saved: Path, whole: Checkpoint) -> None:
    data = saved.read_bytes()
    position = data.index(whole.network["fc8.weight"].numpy().tobytes()) + 7
    saved.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
    assert "damaged in" in refusal(saved)


def test_what_is_no_checkpoint_is_refused(saved: Path) -> None:
    generator = random.Random(1)
    contents = [b"just a text file\n" * 20, b"PK\x03\x04" + bytes(200), b"\x80\x02", b"{}", b"(l."]
    contents += [b"\x80\x04" + generator.randbytes(40) for _ in range(150)]
    contents += [generator.randbytes(60) for _ in range(150)]
    for content in contents:
        saved.write_bytes(content)
        refusal(saved)


@pytest.mark.parametrize(
    "values",
    [
        [1, 2],
        torch.zeros(3),
        {"weights": torch.zeros(3)},
        {"format_version": 99},
        {"format_version": 1},
        {"format_version": 1, "recipe": {}},
        {"format_version": 1, "recipe": [], "data": {}},
    ],
)
def test_other_files_of_torch_are_refused(saved: Path, values: Any) -> None:
    torch.save(values, saved)
    refusal(saved)


def test_a_checkpoint_of_another_version_names_its_program(saved: Path) -> None:
    values = torch.load(saved, weights_only=True)
    torch.save(values | {"format_version": 99, "written_by": "train 7.0.0"}, saved)
    said = refusal(saved)
    assert f"has checkpoint version 99 of train 7.0.0, this program, train {__version__}" in said


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Checkpoint)])
def test_a_checkpoint_without_one_of_its_parts_is_refused(saved: Path, key: str) -> None:
    values = torch.load(saved, weights_only=True)
    del values[key]
    torch.save(values, saved)
    assert key in refusal(saved)


def test_a_checkpoint_of_unknown_recipe_keys_is_refused(saved: Path) -> None:
    values = torch.load(saved, weights_only=True)
    values["recipe"]["learning_rat"] = 1.0
    torch.save(values, saved)
    assert "learning_rat" in refusal(saved)


class _Code:
    """Unpickled without weights_only, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_refused_and_not_executed(saved: Path, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    values = torch.load(saved, weights_only=True)
    torch.save(values | {"epoch": _Code(target)}, saved)
    refusal(saved)
    saved.write_bytes(pickle.dumps(_Code(target)))
    refusal(saved)
    assert not target.exists()
    pickle.loads(saved.read_bytes())  # the code does work
    assert target.exists()


def changed_values(recipe: Recipe) -> dict[str, Any]:
    """Another valid value for every key."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Recipe):
        old = getattr(recipe, field.name)
        if field.name == "crop":
            values["crop"] = 227
        elif field.name == "val_views":
            values["val_views"] = 5
        elif field.name == "layer_rates":
            values["layer_rates"] = (LayerRate("conv1", 1, 0.0),)
        elif isinstance(old, bool):
            values[field.name] = not old
        elif isinstance(old, str):
            values[field.name] = old + " changed"
        elif isinstance(old, tuple):
            values[field.name] = (1,)
        elif isinstance(old, int):
            values[field.name] = old + 1
        else:
            values[field.name] = old * 0.5 or 0.25
    return values


def test_the_same_recipe_and_data_resume(whole: Checkpoint, recipe: Recipe) -> None:
    check_resumable(whole, recipe, whole.data, "", Path("runs/x"))
    reworded = dataclasses.replace(recipe, about="in other words", stop_patience=3)
    check_resumable(whole, reworded, whole.data, "", Path("runs/x"))


@pytest.mark.parametrize(
    "key",
    [
        field.name
        for field in dataclasses.fields(Recipe)
        if field.name not in ("about", "stop_patience")
    ],
)
def test_resuming_with_another_value_names_it(whole: Checkpoint, recipe: Recipe, key: str) -> None:
    value = changed_values(recipe)[key]
    with pytest.raises(UserError) as caught:
        check_resumable(
            whole, dataclasses.replace(recipe, **{key: value}), whole.data, "", Path("runs/x")
        )
    message = str(caught.value)
    name = "recipe" if key == "name" else key
    assert f"with {name} {getattr(recipe, key)!r}, this command says {value!r}" in message
    assert "runs/x" in message
    assert "--resume never" in message


def test_resuming_on_other_data_is_refused(whole: Checkpoint, recipe: Recipe) -> None:
    other = dataclasses.replace(whole.data, pixels_id="cd" * 32)
    with pytest.raises(UserError) as caught:
        check_resumable(whole, recipe, other, "", Path("runs/x"))
    assert "abababababab" in str(caught.value)
    assert "cdcdcdcdcdcd" in str(caught.value)
