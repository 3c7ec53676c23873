"""The commands `train eval` and `train export`: a trained network is measured, or handed on."""

from __future__ import annotations

import enum
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prep.program import UserError, counted, rate, say
from train.options import (
    DeviceOption,
    Json,
    RunFolder,
    Workers,
    check_beton,
    check_run,
    cores,
    load_torch,
)

if TYPE_CHECKING:
    from train.evaluate import Score


class ViewsOrAll(enum.StrEnum):
    """Crops a data set is judged by."""

    one = "1"
    five = "5"
    ten = "10"
    all = "all"

    @property
    def shown(self) -> tuple[int, ...]:
        """The centre view's figures are always shown."""
        return (1, 5, 10) if self is ViewsOrAll.all else tuple(sorted({1, int(self.value)}))


class Format(enum.StrEnum):
    """What a network is exported to."""

    onnx = "onnx"
    safetensors = "safetensors"


def evaluate(
    run: RunFolder,
    beton: Annotated[Path, typer.Option(help="Data to judge by, such as val.beton.")],
    views: Annotated[
        ViewsOrAll,
        typer.Option(
            help="1: centre crop; 5: and the corners; 10: and their mirror images; all: 1, 5, 10."
        ),
    ] = ViewsOrAll.one,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write per_class.csv, confusions.csv, categories.csv there, by the most views.",
        ),
    ] = None,
    as_json: Json = False,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 128,
    device: DeviceOption = None,
    workers: Workers = None,
) -> None:
    """Measure a run on a beton. Loss, top-1 and top-5 error; each image counts once."""
    check_run(run)
    check_beton(beton)
    if csv is not None and csv.exists() and not csv.is_dir():
        raise UserError(f"--csv {csv} is a file; give a folder")

    load_torch()
    import torch

    from train import by_class, checkpoint, dataset
    from train import evaluate as stage
    from train.device import choose_device
    from train.loader import evaluation_batches
    from train.screen import Screen

    threads = workers or cores()
    torch.set_num_threads(threads)  # importing FFCV has set it to 1
    loaded = checkpoint.load(run)
    opened = dataset.open_dataset(beton)
    dataset.check_same_classes(opened.card, loaded.data.wnids, loaded.data.side, str(beton))
    if opened.card.pixels_id == loaded.data.pixels_id:
        say(f"{beton} holds the very pictures that {run} was trained on", err=True)
    place = choose_device(device.value if device else None)
    network = checkpoint.trained_network(loaded, run).to(place)
    seen = stage.views_of(loaded.recipe, loaded.data, place, count=max(views.shown))
    started = time.monotonic()
    batches = evaluation_batches(opened, batch, threads, place)
    with Screen() as screen:
        followed = screen.follow("eval", batches.sequential(), len(batches))
        judged = stage.judge(network, followed, seen)
    seconds = time.monotonic() - started
    scores = {count: stage.score(judged[count]) for count in views.shown}
    if as_json:
        say(_scores_json(scores, len(loaded.data.wnids), seconds))
    else:
        _show_scores(scores, len(loaded.data.wnids), seconds, at_random=seen.random is not None)
    if csv is not None:
        by_class.write(csv, judged[seen.count], loaded.data.wnids, loaded.data.names)


def _show_scores(
    scores: dict[int, Score], classes: int, seconds: float, *, at_random: bool
) -> None:
    for count, score in scores.items():
        one = "view at random" if at_random else "centre view"
        say(
            f"{one if count == 1 else f'{count} views'}: top-1 error {score.top1_error:.2%}, "
            f"top-5 error {score.top5_error:.2%}, loss {score.loss:.4f}"
        )
    samples = scores[1].samples
    say(
        f"{counted(samples, 'image')} of {counted(classes, 'class')} in {seconds:.1f} s, "
        f"{rate(samples, seconds)}"
    )


def _scores_json(scores: dict[int, Score], classes: int, seconds: float) -> str:
    figures = {
        str(count): {
            "top1_error": score.top1_error,
            "top5_error": score.top5_error,
            "loss": score.loss,
        }
        for count, score in scores.items()
    }
    samples = scores[1].samples
    return json.dumps(
        {"samples": samples, "classes": classes, "seconds": seconds, "views": figures}
    )


def export(
    run: RunFolder,
    to: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.onnx,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to.", show_default="beside the checkpoint"),
    ] = None,
) -> None:
    """Write the network for other programs, as ONNX or safetensors. With recipe and classes."""
    check_run(run)

    load_torch()
    from train import checkpoint
    from train import export as stage

    ending = f".{to.value}"
    if out is not None and out.suffix != ending:
        raise UserError(f"--out {out}: the name should end in {ending}, or give another --format")
    file = out or checkpoint.file_of(run).with_suffix(ending)
    if to is Format.onnx:
        stage.check_packages()
    loaded = checkpoint.load(run)
    network = checkpoint.trained_network(loaded, run)
    if to is Format.safetensors:
        stage.write_safetensors(network, loaded, file)
    else:
        say(stage.write_onnx(network, loaded, file), err=True)
    say(str(file))
