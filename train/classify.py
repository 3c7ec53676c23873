"""Classifies picture files as evaluation would see them.

Files are given one by one or as folders. A file goes through prep's own resize, with the settings
of the training data, and JPEG encoding and is decoded as FFCV decodes it, so that its logits are
those of the same original in a beton.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prep import images
from prep.program import UserError
from train.checkpoint import TrainedOn
from train.evaluate import Views, probabilities


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The k most probable classes of one picture, best first."""

    path: Path
    pixels: npt.NDArray[np.uint8]  # [S,S,3], as the network saw it before its crop
    labels: list[int]
    names: list[str]
    probabilities: list[float]


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A file that is no picture, or cannot be read."""

    path: Path
    reason: str  # one line, which names the file


def picture_files(named: Iterable[Path]) -> Iterator[Path]:
    """Files as they are named, and the pictures below folders, by their names and sorted.

    Raises UserError for a folder without any, when its turn comes.
    """
    for path in named:
        if not path.is_dir():
            yield path
            continue
        found = sorted(
            file for file in path.rglob("*") if images.is_picture(file.name) and not file.is_dir()
        )
        if not found:
            raise UserError(
                f"{path} has no pictures, which are files with endings such as .jpg or .png; give "
                "the folder that has them"
            )
        yield from found


def load_picture(path: Path, data: TrainedOn) -> npt.NDArray[np.uint8]:
    """A picture file as a sample of the prepared set, uint8 [S,S,3]. Raises UserError."""
    try:
        prepared = images.prepare(path.read_bytes(), data.settings)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; give picture files, such as folder/*"
        ) from error
    except images.RejectedImageError as error:
        raise UserError(f"{path}: {error}; leave it out") from error
    return images.decode_as_ffcv(images.encode_jpeg(prepared.pixels, data.quality))


def classify(
    network: nn.Module,
    data: TrainedOn,
    paths: Iterable[Path],
    k: int,
    views: Views,
) -> Iterator[Prediction | Rejected]:
    """What each of `paths` shows, in their order, by the largest number of `views`.

    `network` is in evaluation mode on the views' device.
    """
    for path in paths:
        try:
            pixels = load_picture(path, data)
        except UserError as error:
            yield Rejected(path, str(error))
            continue
        batch = torch.from_numpy(pixels)[None].to(views.mean_SSC.device)
        softmax = probabilities(network, batch, views)[views.count][0]
        best = softmax.topk(min(k, len(data.wnids)))
        labels = best.indices.tolist()
        names = [data.names[label] for label in labels]
        yield Prediction(path, pixels, labels, names, best.values.tolist())
