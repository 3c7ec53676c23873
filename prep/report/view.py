"""What the page shows of one split: pairs of pictures, kinds, sizes, classes, settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from prep.comparison import knowing, match
from prep.manifest import Manifest
from prep.prepared import Row
from prep.program import UserError
from prep.report import charts, choice, pictures
from prep.report.contents import Split

BARS = 40  # classes that have a bar each
SMALLEST_SIDE = 8  # that --size takes
ENDS = 8  # classes with most and with fewest samples, where there are more


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


def view_of(
    split: Split,
    chosen: list[tuple[choice.Chosen, Row]],
    kinds: tuple[list[choice.Kind], choice.Kind | None],
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
        shorter = np.minimum(widths, heights)
        view["enlarged"] = int((shorter < split.card.side).sum())
        view["all_enlarged"] = bool((shorter < split.card.side).all())
        view["near_side"] = max(round(float(np.median(shorter))), SMALLEST_SIDE)
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
    manifest = _manifest_of(split)
    known = manifest.images_by_class(split.name) if manifest else {}
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
    different = [count for count in counts if count.known not in (None, count.samples)]
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
        "different": len(different),
        "lacking": sorted(different, key=_lack, reverse=True)[:ENDS] if many else [],
        "absent": len(known.keys() - {entry.wnid for entry in card.classes}),
    }


def _manifest_of(split: Split) -> Manifest | None:
    """Of few classes: the only one that knows them all and has no fewer pictures of each."""
    samples = {entry.wnid: entry.samples for entry in split.card.classes}
    if found := match(list(samples)):
        return found
    possible = []
    for manifest in knowing(list(samples)):
        known = manifest.images_by_class(split.name)
        if all(count <= known.get(wnid, 0) for wnid, count in samples.items()):
            possible.append(manifest)
    return possible[0] if len(possible) == 1 else None


def _lack(count: ClassCount) -> int:
    return (count.known or 0) - count.samples


def _settings(split: Split) -> Iterator[tuple[str, str]]:
    card, plan = split.card, split.plan
    yield "image", f"{card.side}x{card.side}, JPEG quality {card.quality}"
    yield "resized by", f"{card.backend}: {card.filter}; {card.fit}"
    yield "EXIF orientation", card.exif
    yield "truncated files", str(plan.get("on_truncated"))
    yield "larger originals rejected (--max-pixels)", f"{plan.get('max_pixels', 0):,} pixels"
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
