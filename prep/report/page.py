"""The report itself: what is chosen, read and drawn, put into page.html.

The file needs no other: pictures are data: URIs, charts are SVG, there is no script. Names of files
and classes are escaped by jinja2; what a terminal or browser would obey in them is shown as text.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from prep.files import whole_file
from prep.handover import Card
from prep.jpeg import RejectedImageError
from prep.program import UserError, counted, visible, why_not
from prep.progress import progress
from prep.report import charts, choice, pictures
from prep.report.contents import Contents, Reason, read_contents
from prep.report.originals import read_originals
from prep.report.view import Choices, Original, Originals, view_of

SECONDS = 30.0  # to look for originals; an archive on a slow disk could take hours
MOST_REASONS = 20  # with pictures
TEMPLATE = "page.html"
NO_ORIGINALS = "no originals are shown: give the folder they lie in with --source SRC"


def write(folder: Path, out: Path, source: Path | None) -> str:
    """Write the report on a prepared set; `source` holds the originals.

    Returns a sentence on what it lacks, "" when nothing. Raises UserError when `folder` is no
    prepared set, or `source` no folder.
    """
    _refuse_no_folder(source)
    contents = read_contents(folder)
    kinds = {split.name: choice.odd_kinds(split) for split in contents.splits}
    chosen: Choices = {}
    for split in contents.splits:
        odd = (one for kind in kinds[split.name][0] for one in kind.shown)
        wanted = [*choice.pairs(split), *odd]
        rows = split.rows([one.number for one in wanted])
        chosen[split.name] = list(zip(wanted, rows, strict=True))
    lacking = "" if source else NO_ORIGINALS
    originals = _originals(source, contents, chosen) if source else {}
    html = _render(
        folder=str(folder.resolve()),
        contents=contents,
        lacking=lacking,
        views=[
            view_of(split, chosen[split.name], kinds[split.name], originals, lacking)
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


def _refuse_no_folder(source: Path | None) -> None:
    if source is not None and not source.is_dir():
        raise UserError(
            f"--source {source} {why_not(source, 'a folder')}; give the folder of the originals, "
            "or leave it out"
        )


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
