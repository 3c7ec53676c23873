"""The commands of `prep` that read a source: check, resize, build."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prep.options import (
    Backend,
    BackendName,
    Clutter,
    DivisionSeed,
    Exif,
    ExifRule,
    Fit,
    FitName,
    Jobs,
    Layout,
    ManifestName,
    MaxPixels,
    MaxRejects,
    OnTruncated,
    Partial,
    Quality,
    Side,
    SourceFolder,
    SplitName,
    TruncatedRule,
    ValFraction,
    Which,
    seed_of,
)
from prep.program import UserError, counted, rate, say

if TYPE_CHECKING:
    from prep.finish import SplitSummary
    from prep.images import Settings
    from prep.manifest import Manifest
    from prep.sources.listing import Source


def check(
    source: SourceFolder,
    manifest: ManifestName = None,
    split: SplitName = Which.all,
    clutter: Clutter = False,
    md5: Annotated[bool, typer.Option("--md5", help="Check archives' md5s too: minutes.")] = False,
    jobs: Jobs = None,
) -> None:
    """Tell what a source holds, and what it lacks. Writes nothing."""
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
            say(f"{archive}: md5 {'right' if right else 'WRONG'}")
            wrong += [] if right else [f"{archive} is not as published: its md5 is another"]
        if not checked:
            say("md5: nothing to check, no archive with a known md5 is there")
    for sentence in wrong:
        say(f"contradiction: {sentence}")
    if wrong:
        raise UserError(
            f"{source} {stage.verdict(known)} in {counted(len(wrong), 'way')}; mend it, or prepare "
            "what is there with `prep resize --partial`"
        )


def resize(
    source: SourceFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Gets OUT/train, OUT/val.")],
    size: Side = 256,
    quality: Quality = 95,
    backend: BackendName = Backend.turbo,
    fit: FitName = Fit.crop,
    exif: ExifRule = Exif.ignore,
    on_truncated: TruncatedRule = OnTruncated.reject,
    layout: Annotated[
        Layout, typer.Option(help="tree: a file a picture; tar: a tar a class, for WebDataset.")
    ] = Layout.tree,
    split: SplitName = Which.all,
    val_fraction: ValFraction = None,
    seed: DivisionSeed = None,
    manifest: ManifestName = None,
    partial: Partial = False,
    clutter: Clutter = False,
    max_pixels: MaxPixels = 40_000_000,
    max_rejects: MaxRejects = 0.01,
    jobs: Jobs = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Work on this Dask cluster: tcp://scheduler:8786."),
    ] = None,
) -> None:
    """Make every picture a square JPEG. Shorter side to --size, cropped. Killed, it carries on."""
    from prep import resize as stage
    from prep.plan import Options

    started = time.monotonic()
    found, known = _found(source, split, val_fraction, seed, manifest, partial, clutter, jobs)
    options = Options(
        settings=_settings(size, quality, backend, fit, exif, on_truncated, max_pixels),
        layout=layout.value,
        jobs=jobs,
        dask=dask,
        max_rejects=max_rejects,
        expected=None if partial else known,
    )
    _tell(stage.resize(found, out, options), out, "", time.monotonic() - started)


def build(
    source: SourceFolder,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Gets train.beton, val.beton.")],
    size: Side = 256,
    quality: Quality = 95,
    backend: BackendName = Backend.turbo,
    fit: FitName = Fit.crop,
    exif: ExifRule = Exif.ignore,
    on_truncated: TruncatedRule = OnTruncated.reject,
    split: SplitName = Which.all,
    val_fraction: ValFraction = None,
    seed: DivisionSeed = None,
    manifest: ManifestName = None,
    partial: Partial = False,
    clutter: Clutter = False,
    max_pixels: MaxPixels = 40_000_000,
    max_rejects: MaxRejects = 0.01,
    jobs: Jobs = None,
) -> None:
    """Do resize, stats, write-beton in one pass. Only betons are kept. Killed, it carries on."""
    from prep import build as stage
    from prep.plan import Options

    started = time.monotonic()
    found, known = _found(source, split, val_fraction, seed, manifest, partial, clutter, jobs)
    options = Options(
        settings=_settings(size, quality, backend, fit, exif, on_truncated, max_pixels),
        jobs=jobs,
        max_rejects=max_rejects,
        expected=None if partial else known,
    )
    _tell(stage.build(found, dest, options), dest, ".beton", time.monotonic() - started)


def _found(
    source: Path,
    split: Which,
    val_fraction: float | None,
    seed: int | None,
    manifest: str | None,
    partial: bool,
    clutter: bool,
    jobs: int | None,
) -> tuple[Source, Manifest | None]:
    """The source, with the splits that are wanted, and what it should hold.

    Raises UserError when it contradicts that and is not to be taken in part.
    """
    from prep import check as checks
    from prep.sources import find_source
    from prep.sources.divide import with_validation

    drawn_from = seed_of(seed, "--val-fraction", wanted=bool(val_fraction))
    known = _manifest_named(manifest)
    listed = Which.all.splits if val_fraction else split.splits  # divided first, dropped then
    found = find_source(source, listed, known, clutter, jobs)
    _tell_skipped(found)
    known = known or checks.manifest_of(found)
    if not partial:
        checks.refuse_contradictions(found, known, listed)
    found = checks.named(found, known)
    if val_fraction:
        found = with_validation(found, val_fraction, drawn_from, split.splits)
    return found, known


def _settings(
    size: int,
    quality: int,
    backend: Backend,
    fit: Fit,
    exif: Exif,
    on_truncated: OnTruncated,
    max_pixels: int,
) -> Settings:
    from prep.images import Settings

    return Settings(
        side=size,
        quality=quality,
        backend=backend.value,
        fit=fit.value,
        exif=exif.value,
        on_truncated=on_truncated.value,
        max_pixels=max_pixels,
    )


def _tell(summaries: list[SplitSummary], out: Path, ending: str, seconds: float) -> None:
    """What became of each split, which is OUT/<split><ending>."""
    for summary in summaries:
        state = ", already prepared" if summary.already_done else ""
        say(
            f"{out / summary.split}{ending}: {counted(summary.samples, 'image')}, "
            f"{summary.rejected} rejected{state}"
        )
    done = sum(summary.done_now for summary in summaries)
    if done:
        say(f"{counted(done, 'picture')} in {seconds:.1f} s, {rate(done, seconds)}")
    if any(summary.rejected for summary in summaries):
        say(f"rejected with their reasons: {out / 'rejects.jsonl'}")


def _tell_skipped(source: Source) -> None:
    skipped = source.skipped
    if skipped.count:
        say(
            f"{counted(skipped.count, 'file')} passed over, such as {skipped.first}: no pictures "
            "by their names, or no regular files",
            err=True,
        )
    if skipped.hidden:
        say(
            f"{counted(len(skipped.hidden), 'folder')} of pictures passed over, such as "
            f"{skipped.hidden[0]}: names that begin with a dot are hidden ones",
            err=True,
        )


def _manifest_named(name: str | None) -> Manifest | None:
    from prep.manifest import load

    return load(name) if name else None
