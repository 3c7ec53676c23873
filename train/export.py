"""A trained network for other programs: as ONNX, or its weights under our names as safetensors.

The network takes `images`, float32 [B,3,crop,crop]: grey levels less the mean, over the divisor; it
gives `logits`, float32 [B,classes]. Both files carry texts that say so (metadata()).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from pathlib import Path

import torch
from torch import nn

from prep.files import whole_file
from prep.program import UserError
from train.augmentation import mean_picture
from train.checkpoint import Checkpoint
from train.recipe import Recipe

IMAGES, LOGITS = "images", "logits"
OPSET = 18  # ONNX 1.13, onnxruntime 1.14 (2023): the version that torch's exporter is written for
NEEDED = ("onnx", "onnxscript")  # packages of the extra "export"; onnxruntime is its third
# Of the largest logit: float32 sums in another order, through eight layers.
TOLERANCE = 1e-4
TRIED = (1, 3)  # images in the batches that onnxruntime is compared on
LEVELS = 60.0  # standard deviation of those images: about that of photographs' grey levels


def metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """What the input must be, the recipe, the classes: texts, those of more than a word in JSON.

    mean_image names the mean image by the data it is of (pixels_id) and by its bytes' sha256;
    `train.stats.npz` beside the training beton and the run's checkpoint have it.
    """
    recipe, data = checkpoint.recipe, checkpoint.data
    mean_SSC = mean_picture(recipe.mean, data.mean_image.numpy())
    mean = {
        "taken_off": recipe.mean,
        "side": data.side,
        "channels": [float(level) for level in mean_SSC.mean((0, 1), dtype="float64")],
        "sha256": hashlib.sha256(mean_SSC.tobytes()).hexdigest(),
        "pixels_id": data.pixels_id,
    }
    return {
        "input": _input_text(recipe),
        "output": f"{LOGITS}: float32 [batch,{len(data.wnids)}], before softmax",
        "preparation": json.dumps(dataclasses.asdict(data.settings)),
        "mean_image": json.dumps(mean),
        "recipe": json.dumps(dataclasses.asdict(recipe)),
        "wnids": json.dumps(data.wnids),
        "names": json.dumps(data.names),
        "pixels_id": data.pixels_id,
    }


def _input_text(recipe: Recipe) -> str:
    mean = {
        "matched": "the mean image where the crop lies",
        "centre": "the mean image's centre crop",
        "channels": "the mean of each colour",
        "half": "127.5",
    }[recipe.mean]
    crop, side = recipe.crop, recipe.image_side
    return (
        f"{IMAGES}: float32 [batch,3,{crop},{crop}], RGB, 0..255 of a crop of the {side}x{side} "
        f"picture, less {mean}, over {recipe.pixel_divisor:g}"
    )


def write_safetensors(network: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """The weights, and batch norm's figures, float32, with metadata()."""
    from safetensors.torch import save

    weights = {name: values.contiguous() for name, values in network.state_dict().items()}
    with whole_file(path) as partial:
        # Not save_file, whose file takes the other one's place and is for its owner alone.
        partial.write_bytes(_in_order(save(weights, metadata(checkpoint))))


def _in_order(file: bytes) -> bytes:
    """The same safetensors file with its texts sorted: the library writes them in any order.

    A file is the header's size in 8 bytes, the header in JSON and spaces, the numbers.
    """
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[start:]


def check_packages() -> None:
    """Raises UserError when what ONNX needs is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format onnx needs {' and '.join(missing)}: pip install 'alexnet-ffcv[export]', or "
            "give --format safetensors"
        )


def write_onnx(network: nn.Module, checkpoint: Checkpoint, path: Path) -> str:
    """The network, in evaluation mode, for batches of any size; returns a line on its check.

    Raises RuntimeError when onnxruntime, if it is installed, computes other logits.
    """
    crop, texts = checkpoint.recipe.crop, metadata(checkpoint)
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, crop, crop),),
        dynamo=True,
        opset_version=OPSET,
        input_names=[IMAGES],
        output_names=[LOGITS],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    if program is None:  # it is one with dynamo=True
        raise RuntimeError("torch.onnx.export gave no program")
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # paths of source files on this machine
    program.model.metadata_props.update(texts)
    with whole_file(path) as partial:
        program.save(partial)
        checked = _compared(network, partial, checkpoint.recipe)
    return f"opset {OPSET}, {texts['input']}; {checked}"


@torch.inference_mode()
def _compared(network: nn.Module, path: Path, recipe: Recipe) -> str:
    if importlib.util.find_spec("onnxruntime") is None:
        return "not checked: onnxruntime is not installed"
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(recipe.seed)
    worst = 0.0
    for count in TRIED:
        levels = torch.randn(count, 3, recipe.crop, recipe.crop, generator=generator) * LEVELS
        images = levels / recipe.pixel_divisor
        wanted = network(images)
        found = torch.from_numpy(session.run([LOGITS], {IMAGES: images.numpy()})[0])
        worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
    if not worst <= TOLERANCE:
        raise RuntimeError(
            f"onnxruntime {onnxruntime.__version__} gives logits that differ from torch's by "
            f"{worst:.1g} of the largest, more than {TOLERANCE:g}"
        )
    return f"onnxruntime's logits are within {worst:.0e} of the largest of torch's"
