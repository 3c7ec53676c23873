"""The commands of `prep` that prepare a source: resize, build; `check` is prep.cli_check."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prep.cli_tell import tell, tell_notes, tell_part, tell_skipped
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
    Json,
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
    part_of,
    seed_of,
)

if TYPE_CHECKING:
    from prep.images import Settings
    from prep.manifest import Manifest
    from prep.sources.listing import Source

DIVIDE = "--val-fraction 0.2"  # as an example


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
    as_json: Json = False,
    jobs: Jobs = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Work on this Dask cluster: tcp://scheduler:8786."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only the I-th of N parts, side by side with the others."),
    ] = None,
) -> None:
    """Make every picture a square JPEG. Shorter side to --size, cropped. Killed, it carries on."""
    from prep import resize as stage
    from prep.plan import Options

    started, of_all = time.monotonic(), part_of(part)
    if part and dask:
        raise typer.BadParameter(f"--part {part} and --dask {dask}: give one of them")
    found, known = _found(source, split, val_fraction, seed, manifest, partial, clutter, jobs)
    options = Options(
        settings=_settings(size, quality, backend, fit, exif, on_truncated, max_pixels),
        layout=layout.value,
        jobs=jobs,
        dask=dask,
        part=of_all,
        max_rejects=max_rejects,
        expected=None if partial else known,
    )
    if part:  # what the whole run says of the source is not said by each
        parts = stage.resize_part(found, out, options)
        tell_part(parts, out, part, time.monotonic() - started, as_json)
    else:
        _note(found, split, val_fraction)
        done = stage.resize(found, out, options)
        tell(done, out, "", time.monotonic() - started, as_json)


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
    as_json: Json = False,
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
    _note(found, split, val_fraction)
    done = stage.build(found, dest, options)
    tell(done, dest, ".beton", time.monotonic() - started, as_json)


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
    known = manifest_named(manifest)
    listed = Which.all.splits if val_fraction else split.splits  # divided first, dropped then
    found = find_source(source, listed, known, clutter, jobs)
    tell_skipped(found)
    known = known or checks.manifest_of(found)
    if not partial:
        checks.refuse_contradictions(found, known, listed)
    found = checks.named(found, known)
    if val_fraction:
        found = with_validation(found, val_fraction, drawn_from, split.splits)
    return found, known


def _note(source: Source, split: Which, val_fraction: float | None) -> None:
    from prep.check import notes

    undivided = split is Which.all and val_fraction is None
    tell_notes(notes(source, DIVIDE if undivided else ""))


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


def manifest_named(name: str | None) -> Manifest | None:
    """That of --manifest."""
    from prep.manifest import load

    return load(name) if name else None
