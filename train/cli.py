"""The `train` program: one command a job. Torch and FFCV are imported when a command needs them."""

from __future__ import annotations

import enum
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prep.program import UserError, counted, png_path, rate, say
from train import __version__

if TYPE_CHECKING:
    from train.classify import Prediction

app = typer.Typer(
    name="train",
    help="Streams FFCV .beton files into AlexNet. --debug, anywhere, shows a traceback when "
    "something fails.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help takes twice as long to import
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Device(enum.StrEnum):
    """Where the network runs."""

    cuda = "cuda"
    cpu = "cpu"
    mps = "mps"


class Feed(enum.StrEnum):
    """Where training images are augmented."""

    cpu = "cpu"
    gpu = "gpu"


class Views(enum.StrEnum):
    """Crops an image is judged by."""

    one = "1"
    five = "5"
    ten = "10"


DeviceOption = Annotated[
    Device | None, typer.Option(help="Where to run.", show_default="the best there is")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Threads that decode, augment and, on a CPU, compute.",
        show_default="every core",
    ),
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="The --out folder of a run, or a checkpoint file.")
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"train {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print and exit.")
    ] = False,
) -> None:
    del version  # handled by its callback


@app.command()
def run(
    beton: Annotated[Path, typer.Option(help="Training data, written by `prep write-beton`.")],
    val_beton: Annotated[
        Path | None,
        typer.Option(help="Validation data.", show_default="val.beton beside --beton, if there"),
    ] = None,
    recipe: Annotated[str, typer.Option(help="A name (see `train recipes`) or a .toml file.")] = (
        "paper"
    ),
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of the recipe; repeatable."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder.", show_default="runs/RECIPE")
    ] = None,
    resume: Annotated[
        str,
        typer.Option(
            metavar="auto|never|PATH",
            help="auto: carry on with --out; never: start over; or the run to go on from.",
        ),
    ] = "auto",
    device: DeviceOption = None,
    feed: Annotated[
        Feed | None,
        typer.Option(
            help="Augment in the loader's threads (cpu) or on the device (gpu): same values.",
            show_default="gpu on a GPU, else cpu",
        ),
    ] = None,
    workers: Workers = None,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN|FILE",
            help="Start from the weights of another run; a new last layer if the classes differ.",
        ),
    ] = None,
    checkpoint_steps: Annotated[
        int, typer.Option(min=0, help="Also write a checkpoint every so many steps.")
    ] = 0,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0, help="Also write a checkpoint every so many minutes.")
    ] = 0.0,
    keep: Annotated[
        int, typer.Option(min=0, help="Keep so many older checkpoints, as step-*.pt.")
    ] = 0,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Take a batch in so many pieces, for less memory.")
    ] = 1,
    compile_network: Annotated[
        bool, typer.Option("--compile", help="Compile the network with torch.compile.")
    ] = False,
) -> None:
    """Train; what was stopped carries on. Checkpoints every epoch, and on SIGTERM or SIGUSR1."""
    from train import schedule
    from train.recipe import load_recipe

    chosen = load_recipe(recipe, settings or ())
    _check_beton(beton)
    if init is not None:
        _check_run(init)
    if val_beton is None and (beside := beton.parent / "val.beton").exists():
        val_beton = beside
    schedule.check_validation(chosen, val_beton)

    from train import loop, start
    from train.state import RunSettings

    path = loop.run(
        RunSettings(
            beton=beton,
            val_beton=val_beton,
            recipe=chosen,
            out=out if out is not None else Path("runs") / chosen.name,
            resume=resume,
            device=start.choose_device(device.value if device else None),
            workers=workers or _cores(),
            feed=feed.value if feed else None,
            init=init,
            accumulate=accumulate,
            compile=compile_network,
            checkpoint_steps=checkpoint_steps,
            checkpoint_minutes=checkpoint_minutes,
            keep=keep,
        )
    )
    say(str(path))


@app.command(name="eval")
def evaluate(
    run: RunFolder,
    beton: Annotated[Path, typer.Option(help="Data to judge by, such as val.beton.")],
    views: Annotated[
        Views,
        typer.Option(help="1: centre crop; 5: and the corners; 10: and their mirror images."),
    ] = Views.one,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 128,
    device: DeviceOption = None,
    workers: Workers = None,
) -> None:
    """Measure a run on a beton. Loss, top-1 and top-5 error; each image counts once."""
    _check_run(run)
    _check_beton(beton)

    import torch

    from train import checkpoint, dataset, start
    from train import evaluate as stage
    from train.loader import evaluation_batches
    from train.screen import Screen

    threads = workers or _cores()
    torch.set_num_threads(threads)  # importing FFCV has set it to 1
    loaded = checkpoint.load(run)
    opened = dataset.open_dataset(beton)
    dataset.check_same_classes(opened.card, loaded.data.wnids, loaded.data.side, str(beton))
    place = start.choose_device(device.value if device else None)
    network = checkpoint.trained_network(loaded, run).to(place)
    started = time.monotonic()
    batches = evaluation_batches(opened, batch, threads, place)
    with Screen() as screen:
        followed = screen.follow("eval", batches.sequential(), len(batches))
        scores = stage.evaluate(
            network, followed, stage.views_of(loaded.recipe, loaded.data, place, int(views))
        )
    seconds = time.monotonic() - started
    for count, score in scores.items():
        name = "centre view" if count == 1 else f"{count} views"
        say(
            f"{name}: top-1 error {score.top1_error:.2%}, top-5 error {score.top5_error:.2%}, "
            f"loss {score.loss:.4f}"
        )
    samples = scores[1].samples
    say(
        f"{counted(samples, 'image')} of {counted(len(loaded.data.wnids), 'class')} in "
        f"{seconds:.1f} s, {rate(samples, seconds)}"
    )


@app.command()
def classify(
    run: RunFolder,
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...")],
    k: Annotated[int, typer.Option("-k", min=1, help="Classes shown for each picture.")] = 5,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png", metavar="FILE.png", callback=png_path, help="Also save pictures with bars."
        ),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """The most probable classes of picture files."""
    if png is not None and png.resolve() in [picture.resolve() for picture in pictures]:
        raise UserError(f"--png {png} is one of the pictures; give another name")
    _check_run(run)

    import dataclasses

    import torch

    from train import checkpoint, start
    from train import classify as stage
    from train.evaluate import views_of

    torch.set_num_threads(_cores())  # importing FFCV has set it to 1
    loaded = checkpoint.load(run)
    place = start.choose_device(device.value if device else None)
    network = checkpoint.trained_network(loaded, run).to(place)
    seen = dataclasses.replace(
        views_of(loaded.recipe, loaded.data, place, count=1), random=None
    )  # a picture file has no number to draw a place by
    predictions = stage.classify(network, loaded.data, pictures, k, seen)
    for prediction in predictions:
        say(str(prediction.path))
        for label, name, probability in zip(
            prediction.labels, prediction.names, prediction.probabilities, strict=True
        ):
            say(f"  {probability:7.2%}  {loaded.data.wnids[label]}  {name}")
    if png is not None:
        _save_predictions(predictions, loaded.data.wnids, loaded.data.names, png)


def _save_predictions(
    predictions: list[Prediction], wnids: list[str], names: list[str], png: Path
) -> None:
    """A picture's own class is known where its folder is called like one."""
    from train.figures import save_predictions

    by_wnid = dict(zip(wnids, names, strict=True))
    truths = [by_wnid.get(prediction.path.absolute().parent.name) for prediction in predictions]
    save_predictions(predictions, truths, png)
    say(f"predictions: {png}")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this one.")] = None,
) -> None:
    """List the recipes, or print one. It shows the source of each value."""
    from train.recipe import load_recipe, recipe_names, recipe_text

    if name is not None:
        typer.echo(recipe_text(name), nl=False)
        return
    for known in recipe_names():
        say(f"{known:13}  {load_recipe(known).about}")


def _check_beton(path: Path) -> None:
    """A wrong name is told before torch and FFCV are imported, which takes seconds."""
    if not path.is_file():
        raise UserError(f"{path} is not a file; give a .beton written by `prep write-beton`")


def _check_run(path: Path) -> None:
    """As _check_beton."""
    if not path.exists():
        raise UserError(f"{path} does not exist; give the --out folder of a `train run`")


def _cores() -> int:
    """The cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    from prep.program import run_program

    run_program("train", app)


if __name__ == "__main__":
    main()
