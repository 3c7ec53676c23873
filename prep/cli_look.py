"""The commands of `prep` that look at what was made: verify, inspect, report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from prep.options import BetonFile, Jobs, Json, Png
from prep.program import UserError, counted, output_path, rate, say, say_json

MOST_LINES = 20  # of damaged places; --json has more


def verify(beton: BetonFile, as_json: Json = False, jobs: Jobs = None) -> None:
    """Check every byte and sample of a beton. Also that every picture decodes."""
    from prep.handover import stats_path
    from prep.verify import verify as check

    started = time.monotonic()
    try:
        card = check(beton, jobs)
    except UserError as error:
        if not as_json:
            _tell_damage(error.found or {})
        raise
    seconds = time.monotonic() - started
    if as_json:
        say_json(
            {
                "beton": str(beton),
                "split": card.split,
                "samples": card.samples,
                "sha256": card.sha256,
                "pixels_id": card.pixels_id,
                "seconds": seconds,
                "has_statistics": stats_path(beton).exists(),
            }
        )
    else:
        say(
            f"{beton}: {counted(card.samples, 'sample')} whole, sha256 {card.sha256}; "
            f"{seconds:.1f} s, {rate(card.samples, seconds)}"
        )
    if card.split == "train" and not stats_path(beton).exists():
        say(
            f"warning: {stats_path(beton)} is missing, and training needs it: run "
            f"`prep stats {beton}`",
            err=True,
        )


def _tell_damage(found: Mapping[str, Any]) -> None:
    """A line a damaged place; one alone is in the error's line."""
    from prep.verify import in_words

    count = found.get("damaged_places", 0)
    if count > 1:
        for place in found["damaged"][:MOST_LINES]:
            say(in_words(place))
    if count > MOST_LINES:
        say(f"and {count - MOST_LINES:,} more")


def inspect(beton: BetonFile, png: Png = None, as_json: Json = False) -> None:
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
    if png is not None:
        sheet.save_png(sheet.beton_sheet(opened, card), png)
    if as_json:
        size = beton.stat().st_size
        about = {"beton": str(beton), "bytes": size, "png": str(png) if png else None}
        say_json(about | dataclasses.asdict(card))
        return
    print_table(card_table(beton, card, opened.layout.size))
    if png is not None:
        say(f"contact sheet: {png}")


def report(
    prepared: Annotated[
        Path,
        typer.Argument(metavar="PREPARED", help="OUT of `prep resize`, or DEST of `prep build`."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Where to.", show_default="PREPARED/report.html"),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="SRC", help="Where the originals lie; shows them beside the rest."),
    ] = None,
) -> None:
    """Write what became of the pictures as one HTML file. Rejects, sizes, classes, pairs."""
    from prep.report import write

    file = output_path(out, "--out", ".html") or prepared / "report.html"
    lacking = write(prepared, file, source)
    if lacking:
        say(lacking, err=True)
    say(str(file))
