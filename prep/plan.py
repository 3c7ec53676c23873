"""What a prepared split was asked to be, so that a changed option is noticed by its name.

A killed run is carried on from only when all of it is equal; a finished split is the one asked
for when what its card says is equal.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prep import __version__
from prep.handover import Card
from prep.images import Settings
from prep.program import UserError
from prep.sources import listing
from prep.sources.listing import Source

OF_CARD = ("side", "quality", "backend", "filter", "fit", "exif", "source")


def card_fields(source: Source, split: str, settings: Settings) -> dict[str, Any]:
    """The fields of a card that are known before any picture is read."""
    return {
        "side": settings.side,
        "quality": settings.quality,
        "backend": settings.backend,
        "filter": settings.filter,
        "fit": settings.fit,
        "exif": settings.exif,
        "source": source.fingerprint(split),
    }


def plan(source: Source, split: str, settings: Settings, layout: str) -> dict[str, Any]:
    """All that decides the prepared split, as JSON can hold it."""
    # How it was divided comes first: it changes which pictures there are.
    return (
        {"division": source.division}
        | card_fields(source, split, settings)
        | {
            "max_pixels": settings.max_pixels,
            "on_truncated": settings.on_truncated,
            "layout": layout,
            "unit_size": listing.UNIT_SIZE,  # with the source, it says where units end
            "tools": ", ".join(
                f"{tool} {version}" for tool, version in tool_versions(settings.backend).items()
            ),
        }
    )


def refuse_other_plan(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    """Raises UserError naming the first difference."""
    for name, value in new.items():
        if name in old and old[name] != value:
            what = (
                "from other pictures (names, sizes or places differ)"
                if name == "source"
                else f"with {name.replace('_', '-')} {old[name]}, this command says {value}"
            )
            raise UserError(f"{folder} was prepared {what}; give another OUT, or remove this one")


def plan_of_card(card: Card) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(card).items() if name in OF_CARD}


def tool_versions(backend: str) -> dict[str, str]:
    """The versions of what decides the bytes."""
    import PIL
    import simplejpeg

    from prep import scale

    tools = {"prep": __version__, "pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}
    if backend == "opencv-2012":
        tools["opencv"] = scale.opencv_version()
    return tools
