"""The `prep` program: one command a stage. Stages are imported when their command runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prep import __version__
from prep.options import (
    Backend,
    BetonFile,
    Clutter,
    Exif,
    Fit,
    Jobs,
    Layout,
    ManifestName,
    Measurable,
    Mode,
    OnTruncated,
    Png,
    PreparedFolder,
    ReadBack,
    SampleOrder,
    SourceFolder,
    SplitName,
    Which,
)
from prep.program import UserError, counted

if TYPE_CHECKING:
    from prep.manifest import Manifest
    from prep.sources.listing import Source

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
    """Draw a small data set in ImageNet's shape, oddities included; no download."""
    from prep.progress import progress
    from prep.sample import draw_sample

    with progress("sample", classes * (per_class + val_per_class)) as report:
        drawn = draw_sample(out, classes, per_class, val_per_class, seed, jobs, report)
    odd = ", ".join(f"{count} {kind}" for kind, count in drawn.odd.items())
    typer.echo(f"{out}: {drawn.images} pictures in {drawn.classes} classes, among them {odd}")


@app.command()
def check(
    source: SourceFolder,
    manifest: ManifestName = None,
    split: SplitName = Which.all,
    clutter: Clutter = False,
    md5: Annotated[bool, typer.Option("--md5", help="Check archives' md5s too: minutes.")] = False,
    jobs: Jobs = None,
) -> None:
    """Tell what a source holds, and what its data set has that it lacks; writes nothing."""
    from prep import check as stage
    from prep.sources import find_source
    from prep.tables import print_table, source_table

    known = _manifest_named(manifest)
    found = find_source(source, split.splits, known, clutter, jobs)
    known = known or stage.manifest_of(found)
    _tell_skipped(found)
    contents = stage.look_inside(found, known, jobs)
    print_table(source_table(found, known, contents))
    wrong = stage.contradictions(found, known, split.splits, contents.counts)
    if md5:
        checked = 0
        for archive, right in stage.check_md5s(found, known, jobs) if known else ():
            checked += 1
            typer.echo(f"{archive}: md5 {'right' if right else 'WRONG'}")
            wrong += [] if right else [f"{archive} is not as published: its md5 is another"]
        if not checked:
            typer.echo("md5: nothing to check, no archive with a known md5 is there")
    for sentence in wrong:
        typer.echo(f"contradiction: {sentence}")
    if wrong:
        raise UserError(
            f"{source} {stage.verdict(known)} in {counted(len(wrong), 'way')}; mend it, or prepare "
            "what is there with `prep resize --partial`"
        )


@app.command()
def resize(
    source: SourceFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Gets OUT/train, OUT/val.")],
    size: Annotated[int, typer.Option(min=8, max=4096, help="Side in pixels.")] = 256,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEGs.")] = 95,
    backend: Annotated[
        Backend,
        typer.Option(
            help="turbo: the fastest; pillow: torchvision's very pixels; opencv-2012: the "
            "AlexNet authors' converter."
        ),
    ] = Backend.turbo,
    fit: Annotated[
        Fit,
        typer.Option(help="crop: shorter side to --size, centre crop; squash: both sides."),
    ] = Fit.crop,
    exif: Annotated[
        Exif,
        typer.Option(help="Orientation. ignore: as ImageNet tools do; apply: turn upright."),
    ] = Exif.ignore,
    on_truncated: Annotated[
        OnTruncated, typer.Option(help="A file whose tail is missing. accept: what is left of it.")
    ] = OnTruncated.reject,
    layout: Annotated[
        Layout, typer.Option(help="tree: a file a picture; tar: a tar a class, for WebDataset.")
    ] = Layout.tree,
    split: SplitName = Which.all,
    val_fraction: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.9, help="Make val from this share of train, class by class."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --val-fraction.")] = 0,
    manifest: ManifestName = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take a data set that is not whole.")
    ] = False,
    clutter: Clutter = False,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger pictures are rejected.")
    ] = 40_000_000,
    max_rejects: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Fraction of a split that may be rejected.")
    ] = 0.01,
    jobs: Jobs = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Work on this Dask cluster: tcp://scheduler:8786."),
    ] = None,
) -> None:
    """Resize every picture: shorter side to --size, centre crop, JPEG. Killed, it carries on."""
    from prep import check as checks
    from prep import resize as stage
    from prep.images import Settings
    from prep.plan import Options
    from prep.sources import find_source
    from prep.sources.divide import with_validation

    started = time.monotonic()
    known = _manifest_named(manifest)
    listed = Which.all.splits if val_fraction else split.splits  # divided first, dropped then
    found = find_source(source, listed, known, clutter, jobs)
    _tell_skipped(found)
    known = known or checks.manifest_of(found)
    if not partial:
        checks.refuse_contradictions(found, known, listed)
    found = checks.named(found, known)
    if val_fraction:
        found = with_validation(found, val_fraction, seed, split.splits)
    options = Options(
        settings=Settings(
            side=size,
            backend=backend.value,
            fit=fit.value,
            exif=exif.value,
            on_truncated=on_truncated.value,
            max_pixels=max_pixels,
            quality=quality,
        ),
        layout=layout.value,
        jobs=jobs,
        dask=dask,
        max_rejects=max_rejects,
        expected=None if partial else known,
    )
    summaries = stage.resize(found, out, options)
    seconds = time.monotonic() - started
    for summary in summaries:
        state = ", already prepared" if summary.already_done else ""
        typer.echo(
            f"{out / summary.split}: {summary.samples} images, {summary.rejected} rejected{state}"
        )
    done = sum(summary.done_now for summary in summaries)
    if done:
        typer.echo(f"{done} pictures in {seconds:.1f} s, {done / seconds:,.0f} images/s")
    if any(summary.rejected for summary in summaries):
        typer.echo(f"rejected with their reasons: {out / 'rejects.jsonl'}")


@app.command()
def stats(source: Measurable, png: Png = None, jobs: Jobs = None) -> None:
    """Mean image, channel means and principal axes of OUT/train, into OUT/train.stats.npz; or of a
    FILE.beton, beside it. Killed, it carries on."""
    from prep import sheet, stats_sheet
    from prep import stats as stage
    from prep.comparison import published_statistics
    from prep.tables import print_table, statistics_table

    started = time.monotonic()
    samples, statistics, resumed = stage.measure(source, jobs)
    seconds = time.monotonic() - started
    classes = [entry.wnid for entry in samples.card.classes]
    print_table(statistics_table(statistics, published_statistics(classes)))
    done = statistics.count - resumed
    earlier = f", {resumed} more by an earlier run" if resumed else ""
    typer.echo(
        f"{samples.output}: {done} images in {seconds:.1f} s, {done / seconds:,.0f} images/s"
        f"{earlier}"
    )
    if png is not None:
        sheet.save_png(stats_sheet.statistics_sheet(statistics, samples.picture(0)), png)
        typer.echo(f"mean image, axes and colour noise: {png}")


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
    seed: Annotated[int, typer.Option(min=0, help="Of --order shuffled.")] = 0,
    verify: Annotated[
        ReadBack,
        typer.Option(help="What is read back. structure: checksums, headers; decode: all of it."),
    ] = ReadBack.structure,
    jobs: Jobs = None,
) -> None:
    """Write OUT/SPLIT as an FFCV .beton, with its card, records and statistics beside it.

    Killed, it carries on.
    """
    from prep.order import Order
    from prep.write import write_beton as write

    started = time.monotonic()
    shuffled = order is SampleOrder.shuffled
    written = write(
        folder,
        beton,
        mode.value,
        jobs,
        Order(order.value, seed if shuffled else None),
        decode=verify is ReadBack.decode,
    )
    card, seconds = written.card, time.monotonic() - started
    size = beton.stat().st_size
    typer.echo(
        f"{beton}: {card.samples} samples, {size / 1e6:,.1f} MB in {seconds:.1f} s, "
        f"{card.samples / seconds:,.0f} images/s"
    )
    if written.kept:
        typer.echo(f"{written.kept} of them were there, written by a run that was stopped")
    if card.split == "train" and not written.has_statistics:
        typer.echo(
            f"warning: {folder.parent / 'train.stats.npz'} is missing, and training needs it: run "
            f"`prep stats {folder}`, then this command again",
            err=True,
        )


@app.command()
def verify(beton: BetonFile, jobs: Jobs = None) -> None:
    """Check structure, checksums, labels and that every picture decodes."""
    from prep.verify import verify as check

    started = time.monotonic()
    card = check(beton, jobs)
    seconds = time.monotonic() - started
    typer.echo(
        f"{beton}: {card.samples} samples whole, sha256 {card.sha256}; {seconds:.1f} s, "
        f"{card.samples / seconds:,.0f} images/s"
    )


@app.command()
def inspect(
    beton: BetonFile,
    png: Png = None,
) -> None:
    """Show what is in a beton."""
    from prep import sheet
    from prep.beton import open_beton
    from prep.handover import read_beton_card
    from prep.tables import card_table, print_table

    opened = open_beton(beton)
    card = read_beton_card(beton)
    if len(opened) != card.samples:
        raise UserError(
            f"{beton} has {len(opened)} samples, the card beside it says {card.samples}: they are "
            "not of one make; copy both again, or write the beton again"
        )
    print_table(card_table(beton, card, opened.layout.size))
    if png is not None:
        sheet.save_png(sheet.beton_sheet(opened, card), png)
        typer.echo(f"contact sheet: {png}")


def _tell_skipped(source: Source) -> None:
    skipped = source.skipped
    if skipped.count:
        typer.echo(
            f"{counted(skipped.count, 'file')} passed over, such as {skipped.first}: no pictures "
            "by their names, or no regular files",
            err=True,
        )


def _manifest_named(name: str | None) -> Manifest | None:
    from prep.manifest import load

    return load(name) if name else None


def main() -> None:
    from prep.program import run_program

    run_program("prep", app)


if __name__ == "__main__":
    main()
