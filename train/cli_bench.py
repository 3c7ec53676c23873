"""The command `train bench`: how fast this machine trains, and which part holds the others up."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated

import typer

from prep.program import say
from train.options import (
    BetonOption,
    DeviceOption,
    FeedOption,
    Json,
    RecipeOption,
    Settings,
    Workers,
    check_beton,
    cores,
    load_torch,
)


class PrecisionOption(enum.StrEnum):
    """Of the multiplications."""

    float32 = "float32"
    tf32 = "tf32"
    bf16 = "bf16"
    fp16 = "fp16"


def bench(
    beton: BetonOption,
    recipe: RecipeOption = "paper",
    settings: Settings = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Images in a step; repeatable.", show_default="the recipe's"),
    ] = None,
    precision: Annotated[
        list[PrecisionOption] | None,
        typer.Option(help="Of the multiplications; repeatable.", show_default="the recipe's"),
    ] = None,
    compile_network: Annotated[
        bool, typer.Option("--compile", help="Also with the network compiled by torch.compile.")
    ] = False,
    graphs: Annotated[
        bool, typer.Option("--graphs", help="On a GPU: also compiled, replayed as a CUDA graph.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each rate.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.01, help="Of each measurement.")] = 5.0,
    as_json: Json = False,
    device: DeviceOption = None,
    feed: FeedOption = None,
    workers: Workers = None,
) -> None:
    """Measure rates: the loader alone, a step alone, both together. Nothing is kept."""
    from train.recipe import Precision, load_recipe

    chosen = load_recipe(recipe, settings or ())
    check_beton(beton)

    load_torch()
    import torch

    from train import bench as stage
    from train import start
    from train.device import choose_device
    from train.processes import ALONE
    from train.screen import Screen
    from train.state import RunSettings

    threads = workers or cores()
    torch.set_num_threads(threads)  # importing FFCV has set it to 1
    run = RunSettings(
        beton=beton,
        val_beton=None,
        recipe=chosen,
        out=Path(),
        resume="never",
        device=choose_device(device.value if device else None),
        workers=threads,
        feed=feed.value if feed else None,
    )
    precisions: list[Precision] = [chosen.precision]
    if precision:
        precisions = [of.value for of in precision]
    ways = stage.ways(batch or [chosen.batch], precisions, compile_network, graphs)
    for way in ways:  # before any is measured
        start.check_graphs(stage.settings_of(run, way), ALONE)
    data = start.open_train_data(beton)
    with Screen() as screen:
        measured = []
        for way in ways:
            try:
                measured.append(
                    stage.measure(run, data, way, rounds=rounds, seconds=seconds, screen=screen)
                )
            except torch.OutOfMemoryError:
                screen.line(f"{way}: {run.device} has too little memory for it")
    if as_json:
        say(json.dumps(stage.report(measured)))
    else:
        for line in stage.lines(measured):
            say(line)
