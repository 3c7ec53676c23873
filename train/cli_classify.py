"""The command `train classify`: the most probable classes of picture files."""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prep.program import UserError, counted, png_path, say
from train.options import DeviceOption, Json, RunFolder, check_run, cores, load_torch

if TYPE_CHECKING:
    from train.checkpoint import TrainedOn
    from train.classify import Prediction

STDIN = "-"  # in place of a picture: paths are read from standard input


class Views(enum.StrEnum):
    """Crops a picture is judged by."""

    one = "1"
    five = "5"
    ten = "10"


def classify(
    run: RunFolder,
    pictures: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Files, folders of pictures, or - for paths on standard input, one a line.",
        ),
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="Classes shown for each picture.")] = 5,
    views: Annotated[
        Views,
        typer.Option(help="1: centre crop; 5: and the corners; 10: and their mirror images."),
    ] = Views.one,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png", metavar="FILE.png", callback=png_path, help="Also save pictures with bars."
        ),
    ] = None,
    as_json: Json = False,
    device: DeviceOption = None,
) -> None:
    """The most probable classes of picture files. One that is no picture is named, and exit 1."""
    check_run(run)

    load_torch()
    import dataclasses

    import torch

    from train import checkpoint
    from train import classify as stage
    from train.device import choose_device
    from train.evaluate import views_of
    from train.figures import MOST

    torch.set_num_threads(cores())  # importing FFCV has set it to 1
    loaded = checkpoint.load(run)
    place = choose_device(device.value if device else None)
    network = checkpoint.trained_network(loaded, run).to(place)
    seen = dataclasses.replace(
        views_of(loaded.recipe, loaded.data, place, int(views)), random=None
    )  # a picture file has no number to draw a place by
    files = _but_for(png, stage.picture_files(_named(pictures)))
    drawn: list[Prediction] = []
    found, rejected = 0, 0
    for result in stage.classify(network, loaded.data, files, k, seen):
        found += 1
        if isinstance(result, stage.Rejected):
            rejected += 1
            say(result.reason, err=True)
            if as_json:
                say(json.dumps({"path": str(result.path), "error": result.reason}))
            continue
        if as_json:
            say(_prediction_json(result, loaded.data))
        else:
            _show_prediction(result, loaded.data)
        if png is not None and len(drawn) < MOST:
            drawn.append(result)
    if png is not None and drawn:
        _save_predictions(drawn, loaded.data, png)
        left_out = f", the first {MOST}" if found - rejected > MOST else ""
        say(f"predictions: {png}{left_out}", err=as_json)
    if rejected:
        raise UserError(
            f"{rejected} of {counted(found, 'picture')} could not be classified, as said above; "
            "leave them out",
            found=None,
        )


def _named(pictures: list[Path]) -> Iterator[Path]:
    """What the command line and, in place of -, standard input name."""
    for picture in pictures:
        if str(picture) != STDIN:
            yield picture
            continue
        for line in sys.stdin.buffer:
            if name := line.rstrip(b"\r\n"):
                yield Path(os.fsdecode(name))


def _but_for(png: Path | None, files: Iterator[Path]) -> Iterator[Path]:
    """Raises UserError when --png is about to be one of the pictures."""
    for path in files:
        if png is not None and path.resolve() == png.resolve():
            raise UserError(f"--png {png} is one of the pictures; give another name")
        yield path


def _show_prediction(prediction: Prediction, data: TrainedOn) -> None:
    say(str(prediction.path))
    for label, name, probability in zip(
        prediction.labels, prediction.names, prediction.probabilities, strict=True
    ):
        wnid = data.wnids[label]
        known = name if name == wnid else f"{wnid}  {name}"  # folders may be called as classes are
        say(f"  {probability:7.2%}  {known}")


def _prediction_json(prediction: Prediction, data: TrainedOn) -> str:
    """One line."""
    classes = [
        {"label": label, "wnid": data.wnids[label], "name": name, "probability": probability}
        for label, name, probability in zip(
            prediction.labels, prediction.names, prediction.probabilities, strict=True
        )
    ]
    return json.dumps({"path": str(prediction.path), "classes": classes})


def _save_predictions(predictions: list[Prediction], data: TrainedOn, png: Path) -> None:
    """A picture's own class is known where its folder is called like one."""
    from train.figures import save_predictions

    by_wnid = dict(zip(data.wnids, data.names, strict=True))
    truths = [by_wnid.get(prediction.path.absolute().parent.name) for prediction in predictions]
    save_predictions(predictions, truths, png)
