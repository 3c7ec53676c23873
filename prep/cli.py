"""The `prep` program: one command a stage. Stages are imported when their command runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from prep import __version__, cli_check, cli_look, cli_source
from prep.options import (
    BetonFile,
    Jobs,
    Json,
    Measurable,
    Mode,
    Png,
    PreparedFolder,
    ReadBack,
    SampleOrder,
    seed_of,
)
from prep.program import counted, rate, say, say_json

app = typer.Typer(
    name="prep",
    help="Turns ImageNet, or any folder of pictures, into 256x256 images, a mean image and RGB "
    "PCA, and FFCV .beton files. --debug, anywhere, shows a traceback when something fails.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help takes twice as long to import
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prep {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print and exit.")
    ] = False,
) -> None:
    del version  # handled by its callback


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 10,
    per_class: Annotated[int, typer.Option(help="Training pictures a class.")] = 200,
    val_per_class: Annotated[int, typer.Option(help="Validation pictures a class.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds draw equal files.")] = 0,
    jobs: Jobs = None,
) -> None:
    """Draw a small data set, no download. It has ImageNet's shape, oddities included."""
    from prep.progress import progress
    from prep.sample import draw_sample

    with progress("sample", classes * (per_class + val_per_class)) as report:
        drawn = draw_sample(out, classes, per_class, val_per_class, seed, jobs, report)
    odd = ", ".join(f"{count} {kind}" for kind, count in drawn.odd.items())
    pictures = f"{counted(drawn.images, 'picture')} in {counted(drawn.classes, 'class')}"
    say(f"{out}: {pictures}, among them {odd}")


app.command()(cli_check.check)
app.command()(cli_source.resize)
app.command()(cli_source.build)


@app.command()
def stats(source: Measurable, png: Png = None, as_json: Json = False, jobs: Jobs = None) -> None:
    """Measure mean image and principal axes. Of OUT/train, into OUT/train.stats.npz, or of a
    FILE.beton, beside it. Killed, it carries on."""
    from prep import sheet, stats_sheet
    from prep import stats as stage
    from prep.comparison import published_statistics
    from prep.tables import print_table, statistics_table

    started = time.monotonic()
    samples, statistics, resumed = stage.measure(source, jobs)
    seconds = time.monotonic() - started
    done = statistics.count - resumed
    if png is not None:
        sheet.save_png(stats_sheet.statistics_sheet(statistics, samples.picture(0)), png)
    if as_json:
        say_json(
            {
                "statistics": str(samples.output),
                "images": statistics.count,
                "measured_now": done,
                "seconds": seconds,
                "channel_mean": statistics.channel_mean.tolist(),
                "standard_deviations": statistics.standard_deviations.tolist(),
                "axes": statistics.eigenvectors.T.tolist(),
                "pixels_id": statistics.pixels_id,
                "png": str(png) if png else None,
            }
        )
        return
    classes = [entry.wnid for entry in samples.card.classes]
    print_table(statistics_table(statistics, published_statistics(classes)))
    earlier = f", {resumed} more by an earlier run" if resumed else ""
    say(
        f"{samples.output}: {counted(done, 'image')} in {seconds:.1f} s, {rate(done, seconds)}"
        f"{earlier}"
    )
    if png is not None:
        say(f"mean image, axes and colour noise: {png}")


@app.command()
def write_beton(
    folder: PreparedFolder,
    beton: BetonFile,
    mode: Annotated[
        Mode, typer.Option(help="jpg: the prepared bytes as they are; raw: decoded pixels.")
    ] = Mode.jpg,
    order: Annotated[
        SampleOrder,
        typer.Option(help="class: one class after the other; shuffled: once, from --seed."),
    ] = SampleOrder.by_class,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of --order shuffled.", show_default="0")
    ] = None,
    verify: Annotated[
        ReadBack,
        typer.Option(help="What is read back. structure: checksums, headers; decode: all of it."),
    ] = ReadBack.structure,
    as_json: Json = False,
    jobs: Jobs = None,
) -> None:
    """Write OUT/SPLIT as an FFCV .beton. Its card, records and statistics go beside it.

    Killed, it carries on.
    """
    from prep.order import Order
    from prep.write import write_beton as write

    started = time.monotonic()
    shuffled = order is SampleOrder.shuffled
    drawn_from = seed_of(seed, "--order shuffled", wanted=shuffled)
    written = write(
        folder,
        beton,
        mode.value,
        jobs,
        Order(order.value, drawn_from if shuffled else None),
        decode=verify is ReadBack.decode,
    )
    card, seconds = written.card, time.monotonic() - started
    size = beton.stat().st_size
    if as_json:
        say_json(
            {
                "beton": str(beton),
                "split": card.split,
                "samples": card.samples,
                "bytes": size,
                "written_before": written.kept,
                "seconds": seconds,
                "sha256": card.sha256,
                "pixels_id": card.pixels_id,
                "has_statistics": written.has_statistics,
            }
        )
    else:
        say(
            f"{beton}: {counted(card.samples, 'sample')}, {size / 1e6:,.1f} MB in {seconds:.1f} s, "
            f"{rate(card.samples, seconds)}"
        )
        if written.kept:
            say(f"{written.kept} of them were there, written by a run that was stopped")
    if card.split == "train" and not written.has_statistics:
        say(
            f"warning: {folder.parent / 'train.stats.npz'} is missing, and training needs it: run "
            f"`prep stats {folder}`, then this command again",
            err=True,
        )


app.command()(cli_look.verify)
app.command()(cli_look.inspect)
app.command()(cli_look.report)


def main() -> None:
    from prep.program import run_program

    run_program("prep", app)


if __name__ == "__main__":
    main()
