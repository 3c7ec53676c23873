"""The command `train report`: one HTML file of a run, or of several beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prep.files import refuse_other_kinds
from prep.program import output_path, say
from train.cli_classify import Views
from train.options import DeviceOption, Workers, check_beton, check_run, cores, load_torch

NAME = "report.html"


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="The --out folder of a run, or a checkpoint in it; or several."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Where to.", show_default="RUN/report.html"),
    ] = None,
    beton: Annotated[
        Path | None,
        typer.Option(help="Its training data.", show_default="where it was when it trained"),
    ] = None,
    val_beton: Annotated[
        Path | None,
        typer.Option(help="Data to judge it by.", show_default="what it was validated on"),
    ] = None,
    views: Annotated[
        Views,
        typer.Option(help="1: centre crop; 5: and the corners; 10: and their mirror images."),
    ] = Views.ten,
    smooth: Annotated[
        int, typer.Option(min=1, help="Draw moving averages over so many epochs.")
    ] = 1,
    device: DeviceOption = None,
    workers: Workers = None,
) -> None:
    """Write an HTML page that shows a run. Figures, curves, kernels, predictions, recipe, data; of
    the first of several runs, with the others' curves and figures beside it."""
    for run in runs:
        check_run(run)
    for named in (beton, val_beton):
        if named is not None:
            check_beton(named)
    first = runs[0] if runs[0].is_dir() else runs[0].parent
    path = output_path(out, "--out", ".html") or first / NAME
    refuse_other_kinds(path)

    load_torch()
    import torch

    from train.device import choose_device
    from train.report import gather, page
    from train.report.sections import Settings, sections
    from train.screen import Screen

    threads = workers or cores()
    torch.set_num_threads(threads)  # importing FFCV has set it to 1
    gathered = gather.gather(runs)
    settings = Settings(
        beton=beton,
        val_beton=val_beton,
        views=int(views),
        smooth=smooth,
        device=choose_device(device.value if device else None),
        threads=threads,
    )
    with Screen() as screen:
        values = sections(gathered, settings, screen)
    page.write(values, gathered[0].checkpoint.data.names, path)
    say(str(path))
