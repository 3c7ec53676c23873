"""Exported networks: the same logits elsewhere, and what one must know to feed them."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from conftest import make_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file

from prep.program import UserError
from train import checkpoint as checkpoints
from train import export, networks
from train.checkpoint import Checkpoint
from train.networks.layers import AlexNet
from train.recipe import load_recipe, recipe_from_values

# Every kind of layer: both response norms and dropouts that scale; batch norm, of divided pixels.
RECIPES = {
    "authors-2012": ["network=authors-2012", "mean=centre"],
    "batch-norm": ["network=batch-norm", "crop=227", "pixel_divisor=58", "mean=channels"],
}


def built(name: str) -> tuple[AlexNet, Checkpoint]:
    checkpoint = make_checkpoint(load_recipe("paper", ["width=0.02", "init=he", *RECIPES[name]]))
    return checkpoints.trained_network(checkpoint, Path("runs/x")), checkpoint


@pytest.fixture(scope="module")
def tiny() -> tuple[AlexNet, Checkpoint]:
    return built("batch-norm")


@pytest.mark.parametrize("name", RECIPES)
def test_onnx_gives_torchs_logits_for_any_batch(name: str, tmp_path: Path) -> None:
    network, checkpoint = built(name)
    path = tmp_path / "net.onnx"
    line = export.write_onnx(network, checkpoint, path)
    assert "onnxruntime's logits are within" in line
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    crop = checkpoint.recipe.crop
    assert (taken.name, taken.type, taken.shape) == (
        "images",
        "tensor(float)",
        ["batch", 3, crop, crop],
    )
    assert (given.name, given.shape) == ("logits", ["batch", 2])
    generator = torch.Generator().manual_seed(1)
    for count in (1, 2, 5):
        images = torch.randn(count, 3, crop, crop, generator=generator) * 50
        with torch.inference_mode():
            wanted = network(images)
        (found,) = session.run(["logits"], {"images": images.numpy()})
        scale = float(wanted.abs().max())
        torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-4 * scale)
        assert float(wanted.std()) > 0.01 * scale

    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", export.OPSET)]
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert texts == export.metadata(checkpoint)
    assert str(Path(networks.__file__).parent).encode() not in path.read_bytes()


def test_the_texts_say_what_the_input_must_be(tiny: tuple[AlexNet, Checkpoint]) -> None:
    _, checkpoint = tiny
    texts = export.metadata(checkpoint)
    assert texts["input"] == (
        "images: float32 [batch,3,227,227], RGB, 0..255 of a crop of the 256x256 picture, less the "
        "mean of each colour, over 58"
    )
    assert texts["output"] == "logits: float32 [batch,2], before softmax"
    assert recipe_from_values(json.loads(texts["recipe"]), "texts") == checkpoint.recipe
    assert json.loads(texts["wnids"]) == ["n1", "n2"]
    assert json.loads(texts["names"]) == ["one", "two"]
    assert json.loads(texts["preparation"])["backend"] == "turbo"
    assert texts["pixels_id"] == "ab" * 32
    mean = json.loads(texts["mean_image"])
    assert mean["taken_off"] == "channels"
    levels = checkpoint.data.mean_image.double().mean((0, 1))
    assert mean["channels"] == pytest.approx(levels.tolist(), rel=1e-6)


def test_the_mean_image_is_named_by_its_bytes() -> None:
    _, checkpoint = built("authors-2012")
    mean = json.loads(export.metadata(checkpoint)["mean_image"])
    data = checkpoint.data.mean_image.numpy().tobytes()
    assert mean["sha256"] == hashlib.sha256(data).hexdigest()
    assert mean["pixels_id"] == checkpoint.data.pixels_id


def test_safetensors_hold_the_weights_under_our_names(
    tiny: tuple[AlexNet, Checkpoint], tmp_path: Path
) -> None:
    network, checkpoint = tiny
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    path = tmp_path / "net.safetensors"
    export.write_safetensors(network, checkpoint, path)
    (tmp_path / "any").touch()
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode
    again = networks.build(checkpoint.recipe, 2)
    again.load_state_dict(load_file(path))
    for name, values in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], values), name
    with safe_open(path, "pt") as file:
        assert file.metadata() == export.metadata(checkpoint)


def test_safetensors_have_the_same_bytes_every_time(
    tiny: tuple[AlexNet, Checkpoint], tmp_path: Path
) -> None:
    """The library alone orders the texts anew in every file."""
    files = [tmp_path / name for name in ("one.safetensors", "two.safetensors")]
    for path in files:
        export.write_safetensors(*tiny, path)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert (8 + int.from_bytes(files[0].read_bytes()[:8], "little")) % 8 == 0


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    export.check_packages()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript: pip install 'alexnet-ffcv\[export\]'"):
        export.check_packages()


def test_other_logits_are_a_failure_and_no_file_is_left(
    tiny: tuple[AlexNet, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="differ from torch's by"):
        export.write_onnx(*tiny, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_the_line_says_so(
    tiny: tuple[AlexNet, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "not checked" in export.write_onnx(*tiny, tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").exists()
