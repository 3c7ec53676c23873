"""What commands show as tables: a source, statistics, a beton's card."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from prep.check import Contents
from prep.handover import Card, Statistics
from prep.manifest import Manifest, PublishedStatistics
from prep.program import counted, visible
from prep.sources.listing import Source

FILE_WIDTH = 120  # columns where neither a terminal nor COLUMNS tells: nothing is cut
STORED = {"jpg": "JPEGs of", "raw": "pixels of JPEGs of"}


def print_table(table: Table) -> None:
    """The title is a line of its own: as a table's it would be broken at the table's width."""
    console = Console(markup=False, emoji=False)  # names may hold square brackets and :colons:
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    console.print(visible(str(table.title)), style="italic", soft_wrap=True)
    table.title = None
    console.print(table)


def source_table(source: Source, manifest: Manifest | None, contents: Contents) -> Table:
    title = f"{source.root}: {source.kind}"
    title += f"; {manifest.title}" if manifest else ""
    table = Table(title=title)
    of_manifest = ["known"] if manifest else []
    for heading in ("split", "images", *of_manifest, "classes", "images a class"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split, counts in contents.counts.items():
        images = len(source.splits[split].listing) if not counts.any() else int(counts.sum())
        there = counts[counts > 0]
        expected = manifest.images(split, source.classes) if manifest else None
        known = [f"{expected:,}" if expected is not None else ""] if manifest else []
        table.add_row(
            split,
            f"{images:,}",
            *known,
            f"{len(there):,}" if len(there) else "unlabelled",
            _spread(there),
        )
    for odd in contents.oddities:
        table.add_row(f"{odd.split}, {odd.kind}", f"{odd.found:,}", f"{odd.known:,}", "", "")
    return table


def _spread(counts: npt.NDArray[np.int64]) -> str:
    if not len(counts):
        return ""
    fewest, most = int(counts.min()), int(counts.max())
    return f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"


def statistics_table(
    statistics: Statistics, published: Sequence[PublishedStatistics] = ()
) -> Table:
    """Means and axes, and beneath each row what others measured, its axis turned to ours."""
    table = Table(
        title=f"{counted(statistics.count, 'image')}, pixels 0..255",
        caption="; ".join(f"{others.by}: {others.source}" for others in published) or None,
        caption_justify="left",
    )
    for heading in ("", "red", "green", "blue", "standard deviation"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("mean", *(f"{value:.3f}" for value in statistics.channel_mean), "")
    for others in published:
        table.add_row(others.by, *(f"{value:.3f}" for value in others.channel_mean), "")
    for axis, deviation in enumerate(statistics.standard_deviations):
        vector = statistics.eigenvectors[:, axis]
        table.add_row(
            f"principal axis {axis + 1}", *(f"{value:+.4f}" for value in vector), f"{deviation:.3f}"
        )
        for others in published:
            theirs = np.array(others.axes[axis])
            theirs *= 1 if theirs @ vector >= 0 else -1  # the sign of an axis is free
            table.add_row(
                others.by,
                *(f"{value:+.4f}" for value in theirs),
                f"{others.standard_deviations[axis]:.3f}",
            )
    return table


def card_table(beton: Path, card: Card, stored: npt.NDArray[np.uint64]) -> Table:
    size = beton.stat().st_size
    counts = [entry.samples for entry in card.classes]
    fewest, most = min(counts), max(counts)
    spread = counted(most, "sample") if fewest == most else f"{fewest} to {most} samples"
    names = [f"{c.wnid} {c.name}" if c.name != c.wnid else c.name for c in card.classes[:3]]
    table = Table(title=str(beton), show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # hashes whole, to be copied
    rows = {
        "split": card.split,
        "samples": f"{card.samples:,}",
        "classes": f"{len(counts):,}, {spread} each" if most else f"{len(counts):,}, unlabelled",
        "first classes": ", ".join(names) + (", ..." if len(counts) > len(names) else ""),
        "image": f"{card.side}x{card.side}x3, {STORED[card.mode]} quality {card.quality}",
        "resized by": f"{card.backend}: {card.filter}; {card.fit}, EXIF orientation: {card.exif}",
        "order": card.order + ("" if card.seed is None else f" from seed {card.seed}"),
        "size": f"{size / 1e6:,.1f} MB, whole pages; {stored.mean() / 1e3:,.1f} KB a sample",
        "sha256": str(card.sha256),
        "pixels_id": card.pixels_id,
        "made by": ", ".join(f"{tool} {version}" for tool, version in card.tools.items()),
    }
    for name, value in rows.items():
        table.add_row(name, visible(value))
    return table
