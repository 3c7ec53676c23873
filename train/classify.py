"""Classifies picture files as evaluation would see them.

A file goes through prep's own resize, with the settings of the training data, and JPEG encoding and
is decoded as FFCV decodes it, so that its logits are those of the same original in a beton.
"""

from __future__ import annotations

import dataclasses
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
    paths: list[Path],
    k: int,
    views: Views,
) -> list[Prediction]:
    """Predictions in the order of `paths`, by the largest number of `views`.

    `network` is in evaluation mode on the views' device. Raises UserError for a file that is no
    picture.
    """
    device = views.mean_SSC.device
    predictions = []
    for path in paths:
        pixels = load_picture(path, data)
        batch = torch.from_numpy(pixels)[None].to(device)
        softmax = probabilities(network, batch, views)[views.count][0]
        best = softmax.topk(min(k, len(data.wnids)))
        labels = best.indices.tolist()
        predictions.append(
            Prediction(
                path, pixels, labels, [data.names[label] for label in labels], best.values.tolist()
            )
        )
    return predictions
