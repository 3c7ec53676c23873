"""A run's checkpoint: one file that evaluation and classification need, and that training resumes.

Loaded with weights_only: no code in it is executed.
"""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import torch

from prep.files import whole_file
from prep.handover import Card, Statistics
from prep.images import Settings
from prep.program import UserError, first_line
from train import __version__, networks, pretrained
from train.networks.layers import AlexNet
from train.recipe import Recipe, recipe_from_values

FORMAT_VERSION = 8
WRITTEN_BY = f"train {__version__}"
FILE_NAME = "last.pt"


@dataclasses.dataclass(frozen=True)
class TrainedOn:
    """What later commands must know of the training data."""

    wnids: list[str]  # label order
    names: list[str]
    side: int  # pixels
    quality: int  # of the prepared JPEGs
    backend: str  # what decoded and resized the originals, as the card says
    fit: str
    exif: str
    pixels_id: str
    mean_image: torch.Tensor  # float32 [S,S,3]

    @property
    def settings(self) -> Settings:
        """How an original is prepared to look like this data."""
        return Settings(
            side=self.side,
            quality=self.quality,
            backend=self.backend,
            fit=self.fit,
            exif=self.exif,
        )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """After `epoch` whole epochs and `epoch_step` steps of the next, `step` steps in all."""

    recipe: Recipe
    data: TrainedOn
    network: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]  # of the weights, torch's AveragedModel; empty without one
    optimiser: dict[str, Any]
    scaler: dict[str, Any]  # fp16's
    epoch: int
    epoch_step: int
    step: int
    sums: list[float]  # of the epoch so far, see train.sums
    clock: list[float]  # of the epoch so far, see train.clock
    history: list[dict[str, float]]  # after each epoch, see train.schedule.History
    threads: int  # torch's; another number rounds differently
    origin: str  # another run's checkpoint file that --resume or --init began this one with, or ""
    val_pixels_id: str  # of the validation data; "" without any
    labels_sha256: str  # of the training samples' labels in the beton's order


def trained_on(card: Card, statistics: Statistics) -> TrainedOn:
    return TrainedOn(
        wnids=[entry.wnid for entry in card.classes],
        names=card.class_names,
        side=card.side,
        quality=card.quality,
        backend=card.backend,
        fit=card.fit,
        exif=card.exif,
        pixels_id=card.pixels_id,
        mean_image=torch.from_numpy(statistics.mean_image),
    )


def save(checkpoint: Checkpoint, path: Path) -> None:
    values = {
        field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)
    }
    values["recipe"] = dataclasses.asdict(checkpoint.recipe)
    values["data"] = dataclasses.asdict(checkpoint.data)
    try:
        with whole_file(path) as partial:
            torch.save(
                values | {"format_version": FORMAT_VERSION, "written_by": WRITTEN_BY}, partial
            )
    except RuntimeError as error:  # torch's own word for a full disk
        reason = first_line(error)
        raise UserError(
            f"cannot write {path}: {reason}; make room, then run the same command again"
        ) from error


def file_of(run: Path) -> Path:
    """The checkpoint of a run's folder, or the file itself."""
    return run / FILE_NAME if run.is_dir() else run


def load(path: Path) -> Checkpoint:
    """Read a checkpoint from a run's folder or a file, onto the CPU; or torchvision's weights.

    Raises UserError when there is none, it is damaged, or of another version.
    """
    file = file_of(path)
    try:
        _check_sums(file)
        values = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{file} does not exist; give the --out folder of a `train run` that has finished an "
            "epoch, or a checkpoint file"
        ) from error
    except Exception as error:
        # Zip and pickle readers answer damaged bytes with nearly any exception.
        reason = first_line(error)
        raise UserError(
            f"{file} cannot be read as a checkpoint ({reason}); give the --out folder of a "
            "`train run`, which comes before other files"
        ) from error
    if pretrained.are_torchvisions(values):
        return _pretrained(values, file)
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        writer = values.get("written_by") if isinstance(values, dict) else None
        raise UserError(
            f"{file} has checkpoint version {version}"
            + (f" of {writer}" if writer else "")
            + f", this program, {WRITTEN_BY}, reads {FORMAT_VERSION}; train again, or use the "
            "program that wrote it"
        )
    try:
        del values["format_version"]
        values.pop("written_by", None)  # for whoever cannot read the rest
        values["recipe"] = recipe_from_values(values["recipe"], str(file))
        values["data"] = TrainedOn(**values["data"])
        return Checkpoint(**values)
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is not a whole checkpoint ({error}); train again") from error


def pretrained_data() -> TrainedOn:
    """What torchvision's weights were learned from."""
    wnids, names = pretrained.imagenet_classes()
    return TrainedOn(
        wnids=wnids,
        names=names,
        side=pretrained.SIDE,
        quality=Settings.quality,
        backend=pretrained.BACKEND,
        fit=Settings.fit,
        exif=Settings.exif,
        pixels_id="",
        mean_image=pretrained.mean_image(),
    )


def _pretrained(weights: dict[str, torch.Tensor], file: Path) -> Checkpoint:
    """torchvision's weights, as if a run had ended with them."""
    data = pretrained_data()
    try:
        network = pretrained.ours(weights)
        outputs = len(network["fc8.bias"])
    except (KeyError, ValueError) as error:  # a name that it lacks, or that no layer could have
        raise UserError(
            f"{file} holds weights of another network than torchvision's AlexNet ({error}); give "
            "those of torchvision.models.alexnet, or the --out folder of a `train run`"
        ) from error
    if outputs != len(data.wnids):
        raise UserError(
            f"{file} holds weights for {outputs} classes, and nothing says which; give those for "
            f"ImageNet-1k's {len(data.wnids)}"
        )
    return Checkpoint(
        recipe=pretrained.recipe(),
        data=data,
        network=network,
        average={},
        optimiser={},
        scaler={},
        epoch=0,
        epoch_step=0,
        step=0,
        sums=[],
        clock=[],
        history=[],
        threads=torch.get_num_threads(),
        origin="",
        val_pixels_id="",
        labels_sha256="",
    )


def _check_sums(file: Path) -> None:
    """Raises BadZipFile where a byte was damaged: torch.load skips its own archive's checksums."""
    if not zipfile.is_zipfile(file):  # as torch wrote files before 1.6; else torch.load says so
        return
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"damaged in {damaged}")


def judged_weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights that evaluation goes by: their average where there is one."""
    prefix = "module."  # torch's AveragedModel also counts its updates
    average = {
        name.removeprefix(prefix): values
        for name, values in checkpoint.average.items()
        if name.startswith(prefix)
    }
    return average or checkpoint.network


def trained_network(checkpoint: Checkpoint, origin: Path) -> AlexNet:
    """The network with its trained weights, in evaluation mode.

    Raises UserError when the weights are those of another network.
    """
    network = networks.without_weights(checkpoint.recipe, len(checkpoint.data.wnids))
    load_weights(network, judged_weights(checkpoint), origin)
    return network.eval()


def load_weights(network: AlexNet, weights: dict[str, torch.Tensor], origin: Path) -> None:
    """Raises UserError when they are of another network."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"{origin} holds the weights of another network than its recipe describes: {detail}; "
            "give the checkpoint of this recipe"
        ) from error
