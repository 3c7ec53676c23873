"""The `train` program: one command a job. Torch and FFCV are imported when a command needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prep.program import say
from train import __version__, cli_bench, cli_classify, cli_report, cli_trained
from train.options import (
    BetonOption,
    DeviceOption,
    FeedOption,
    RecipeOption,
    Settings,
    Workers,
    check_beton,
    cores,
    load_torch,
    recipes_for_shell,
)

app = typer.Typer(
    name="train",
    help="Streams FFCV .beton files into AlexNet. --debug, anywhere, shows a traceback when "
    "something fails.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help takes twice as long to import
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    beton: BetonOption,
    val_beton: Annotated[
        Path | None,
        typer.Option(help="Validation data.", show_default="val.beton beside --beton, if there"),
    ] = None,
    recipe: RecipeOption = "paper",
    settings: Settings = None,
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
    feed: FeedOption = None,
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
    graphs: Annotated[
        bool,
        typer.Option(
            "--graphs", help="On a GPU: --compile, and replay whole updates as a CUDA graph."
        ),
    ] = False,
    summary: Annotated[
        bool,
        typer.Option("--summary", help="Print the network's layers; its graph to TensorBoard."),
    ] = False,
) -> None:
    """Train; what was stopped carries on. Checkpoints every epoch, and on SIGTERM or SIGUSR1."""
    from train import schedule
    from train.recipe import load_recipe, recipe_text

    chosen = load_recipe(recipe, settings or ())
    check_beton(beton)
    if val_beton is None and (beside := beton.parent / "val.beton").exists():
        val_beton = beside
    if val_beton is not None:
        check_beton(val_beton)
    schedule.check_validation(chosen, val_beton)

    from train.device import choose_device

    place = choose_device(device.value if device else None)  # first: FFCV takes seconds to import
    load_torch()
    from train import loop
    from train.processes import begun_again, from_environment
    from train.state import RunSettings

    if resume == "never" and begun_again():  # what this run has done since is not to be lost
        resume = "auto"
    path = loop.run(
        RunSettings(
            beton=beton,
            val_beton=val_beton,
            recipe=chosen,
            out=out if out is not None else Path("runs") / chosen.name,
            resume=resume,
            device=place,
            workers=workers or cores(),
            feed=feed.value if feed else None,
            init=init,
            accumulate=accumulate,
            computed="graphs" if graphs else "compiled" if compile_network else "eager",
            checkpoint_steps=checkpoint_steps,
            checkpoint_minutes=checkpoint_minutes,
            keep=keep,
            summary=summary,
            recipe_text=recipe_text(recipe),
        )
    )
    rank, _, _ = from_environment()
    if rank == 0:
        say(str(path))


app.command(name="eval")(cli_trained.evaluate)
app.command()(cli_classify.classify)
app.command()(cli_report.report)
app.command()(cli_trained.export)
app.command()(cli_bench.bench)


@app.command()
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Print this one.", autocompletion=recipes_for_shell),
    ] = None,
) -> None:
    """List the recipes, or print one. It shows the source of each value."""
    from train.recipe import load_recipe, recipe_names, recipe_text

    if name is not None:
        typer.echo(recipe_text(name), nl=False)
        return
    for known in recipe_names():
        say(f"{known:13}  {load_recipe(known).about}")


def main() -> None:
    from prep.program import run_program

    run_program("train", app)


if __name__ == "__main__":
    main()
