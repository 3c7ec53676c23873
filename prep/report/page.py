"""The report itself: what is chosen, read and drawn, put into page.html.

The file needs no other: pictures are data: URIs, charts are SVG, there is no script. Names of files
and classes are escaped by jinja2; what a terminal or browser would obey in them is shown as text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from prep.comparison import match
from prep.files import whole_file
from prep.handover import Card
from prep.jpeg import RejectedImageError
from prep.prepared import Row
from prep.program import UserError, counted, visible
from prep.progress import progress
from prep.report import charts, choice, pictures
from prep.report.contents import Contents, Reason, Split, read_contents
from prep.report.originals import read_originals

SECONDS = 30.0  # to look for originals; an archive on a slow disk could take hours
MOST_REASONS = 20  # with pictures
BARS = 40  # classes that have a bar each
ENDS = 8  # classes with most and with fewest samples, where there are more
TEMPLATE = "page.html"


@dataclasses.dataclass(frozen=True)
class Original:
    """A small picture of an original; without one, the reason."""

    uri: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A prepared picture, the row of its original, and that original."""

    why: str
    row: Row
    class_name: str
    prepared: str  # a data: URI
    fault: str  # why there is none
    original: Original


@dataclasses.dataclass(frozen=True)
class ClassCount:
    name: str
    samples: int
    known: int | None  # by the data set's manifest


Originals = dict[str, Original]  # by the name of the source
Choices = dict[str, list[tuple[choice.Chosen, Row]]]  # by split, in the order of choosing


def write(folder: Path, out: Path, source: Path | None) -> str:
    """Write the report on a prepared set; `source` holds the originals.

    Returns a sentence on what it lacks, "" when nothing. Raises UserError when `folder` is no
    prepared set.
    """
    contents = read_contents(folder)
    kinds = {split.name: choice.odd_kinds(split) for split in contents.splits}
    chosen: Choices = {}
    for split in contents.splits:
        odd = (one for kind in kinds[split.name][0] for one in kind.shown)
        wanted = [*choice.pairs(split), *odd]
        rows = split.rows([one.number for one in wanted])
        chosen[split.name] = list(zip(wanted, rows, strict=True))
    lacking = _lacking(source)
    originals: Originals = {}
    if source is not None and not lacking:
        originals = _originals(source, contents, chosen)
    html = _render(
        folder=str(folder.resolve()),
        contents=contents,
        lacking=lacking,
        views=[
            _view(split, chosen[split.name], kinds[split.name], originals, lacking)
            for split in contents.splits
        ],
        reasons=[
            _reason(group, originals if number < MOST_REASONS else {})
            for number, group in enumerate(contents.reasons)
        ],
        statistics=_statistics(contents),
        chart=charts,
    )
    with whole_file(out) as partial:
        partial.write_text(html, encoding="utf-8")
    return lacking


def _lacking(source: Path | None) -> str:
    if source is None:
        return "no originals are shown: give the folder they lie in with --source SRC"
    if not source.is_dir():
        state = "is not a folder" if source.exists() else "does not exist"
        return f"no originals are shown: --source {source} {state}"
    return ""


def _originals(source: Path, contents: Contents, chosen: Choices) -> Originals:
    """Small pictures of the originals that will be shown."""
    cards: dict[str, Card | None] = {}
    for split in contents.splits:
        cards |= {row["source"]: split.card for _, row in chosen[split.name]}
    for group in contents.reasons[:MOST_REASONS]:
        cards |= {path: None for path, _ in group.first}
    found: Originals = {}
    with progress("originals", len(cards)) as report:
        for picture in read_originals(source, list(cards), SECONDS):
            if picture.data is None:
                found[picture.name] = Original(reason=picture.reason or "")
            else:
                try:
                    found[picture.name] = Original(
                        *pictures.original(picture.data, cards[picture.name])
                    )
                except RejectedImageError as error:
                    found[picture.name] = Original(reason=str(error))
            report(1)
    return found


# --------------------------------------------------------------------------- a split


def _view(
    split: Split,
    chosen: list[tuple[choice.Chosen, Row]],
    kinds: tuple[list[choice.Kind], int],
    originals: Originals,
    lacking: str,
) -> dict[str, Any]:
    """What page.html shows of a split."""
    shown = [_pair(split, one, row, originals, lacking) for one, row in chosen]
    odd, usual = kinds
    of_pairs = len(shown) - sum(len(kind.shown) for kind in odd)
    rest = iter(shown[of_pairs:])
    ok = split.ok
    widths, heights = split.widths[ok], split.heights[ok]
    view: dict[str, Any] = {
        "name": split.name,
        "card": split.card,
        "plan": split.plan,
        "rejected": int((~ok).sum()),
        "pairs": shown[:of_pairs],
        "kinds": [(kind, [next(rest) for _ in kind.shown]) for kind in odd],
        "usual": usual,
        "settings": list(_settings(split)),
        "scatter": None,
    }
    if len(widths):
        view["scatter"] = charts.scatter(widths, heights, split.card.side)
        view["enlarged"] = int((np.minimum(widths, heights) < split.card.side).sum())
        view["median"] = f"{np.median(widths):.0f}x{np.median(heights):.0f}"
    return view | _balance(split)


def _pair(split: Split, one: choice.Chosen, row: Row, originals: Originals, lacking: str) -> Pair:
    picture, fault = "", ""
    try:
        picture = pictures.prepared_picture(split.jpeg(one.number, row), split.card.side)
    except (UserError, OSError, ValueError) as error:
        fault = str(error)
    found = Original() if lacking else originals[row["source"]]
    if found.uri and (found.width, found.height) != (row["width"], row["height"]):
        found = Original(
            reason=f"another picture lies there, of {found.width}x{found.height} pixels: is "
            "--source the folder that was prepared?"
        )
    return Pair(one.why, row, split.card.name_of(row["label"]), picture, fault, found)


def _balance(split: Split) -> dict[str, Any]:
    """Samples a class, and what the data set's manifest says of them."""
    card = split.card
    if not card.labelled or not card.classes:
        return {"classes": [], "ranked": None, "manifest": None, "different": 0}
    manifest = match([entry.wnid for entry in card.classes])
    known: dict[str, int] = {}
    if manifest is not None:
        known = {
            entry.folder: entry.images[split.name]
            for entry in manifest.classes
            if split.name in entry.images
        }
    counts = [
        ClassCount(
            f"{entry.wnid} {entry.name}" if entry.name != entry.wnid else entry.name,
            entry.samples,
            known.get(entry.wnid),
        )
        for entry in card.classes
    ]
    by_count = sorted(counts, key=lambda count: -count.samples)
    many = len(counts) > BARS
    of_manifest = [count.known for count in counts if count.known is not None]
    return {
        "classes": [*by_count[:ENDS], *by_count[-ENDS:]] if many else counts,
        "ranked": charts.ranked(
            [count.samples for count in counts],
            of_manifest if len(of_manifest) == len(counts) else None,
        )
        if many
        else None,
        "most": max(max(count.samples, count.known or 0) for count in counts) or 1,
        "fewest": by_count[-1].samples,
        "largest": by_count[0].samples,
        "manifest": manifest.title if manifest and of_manifest else None,
        "different": sum(count.known not in (None, count.samples) for count in counts),
    }


def _settings(split: Split) -> Iterator[tuple[str, str]]:
    card, plan = split.card, split.plan
    yield "image", f"{card.side}x{card.side}, JPEG quality {card.quality}"
    yield "resized by", f"{card.backend}: {card.filter}; {card.fit}"
    yield "EXIF orientation", card.exif
    yield "truncated files", str(plan.get("on_truncated"))
    yield "largest original", f"{plan.get('max_pixels', 0):,} pixels"
    yield "layout", str(plan.get("layout"))
    if plan.get("val_fraction"):
        yield "divided", str(plan["val_fraction"])
    yield "made by", ", ".join(f"{tool} {version}" for tool, version in card.tools.items())
    yield "source (sha256 of its listing)", card.source
    yield "pixels_id", card.pixels_id
    if card.sha256:
        yield "sha256 of the beton", card.sha256
    if card.records_sha256:
        yield "sha256 of its records", card.records_sha256
    yield "card's format", f"version {card.format_version}"


# --------------------------------------------------------------------------- the rest


def _reason(group: Reason, originals: Originals) -> dict[str, Any]:
    nothing = Original()
    examples = [(path, why, originals.get(path, nothing)) for path, why in group.first]
    return {"group": group, "examples": examples}


def _statistics(contents: Contents) -> dict[str, Any] | None:
    statistics = contents.statistics
    if statistics is None:
        return None
    return {
        "count": counted(statistics.count, "image"),
        "mean": pictures.mean_image(statistics),
        "channels": [f"{value:.2f}" for value in statistics.channel_mean],
        "axes": [
            {
                "deviation": f"{statistics.standard_deviations[axis]:.2f}",
                "vector": [f"{value:+.4f}" for value in statistics.eigenvectors[:, axis]],
                "ramp": pictures.ramp(statistics, axis),
            }
            for axis in range(3)
        ],
        "decoder": statistics.decoder,
        "pixels_id": statistics.pixels_id,
    }


def _render(**values: Any) -> str:
    import jinja2

    def shown(value: object) -> object:
        is_plain = isinstance(value, str) and not hasattr(value, "__html__")
        return visible(value) if is_plain else value  # type: ignore[arg-type]

    environment = jinja2.Environment(
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    text = resources.files("prep.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(text).render(values)
