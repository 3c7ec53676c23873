"""What a prepared split was asked to be, so that a changed option is noticed by its name.

The plan lies with a run's journal, then in the finished split's manifest. A killed run is carried
on from only when all of it is equal; a finished split, which is whole, may be older than a tool.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prep import __version__
from prep.images import Settings
from prep.manifest import Manifest
from prep.program import UserError
from prep.sources import listing
from prep.sources.listing import Source

# What changes which pictures there are, or their classes: told before that they are others.
CHOICES = ("val_fraction", "clutter", "manifest")
WHILE_RUNNING = ("tools", "unit_size")  # what makes no difference to a finished split
NO_OPTIONS = (*WHILE_RUNNING, "filter")  # which the user has not given
BETON = "beton"  # the layout of `prep build`


@dataclasses.dataclass(frozen=True)
class Options:
    """How to prepare, where and by whom."""

    settings: Settings = dataclasses.field(default_factory=Settings)
    layout: str = "tree"  # or "tar", one a class
    jobs: int | None = None  # worker processes; None: every core
    dask: str | None = None  # address of a Dask scheduler, whose workers do the units instead
    part: tuple[int, int] | None = None  # (i, of n): the units that this run does; None: all
    max_rejects: float = 0.01  # fraction of a split
    expected: Manifest | None = None  # what the archives should hold; None: anything


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


def plan(source: Source, split: str, options: Options) -> dict[str, Any]:
    """All that decides the prepared split, as JSON can hold it."""
    settings = options.settings
    return (
        {name: source.choices.get(name, "") for name in CHOICES}
        | card_fields(source, split, settings)
        | {
            "max_pixels": settings.max_pixels,
            "on_truncated": settings.on_truncated,
            "layout": options.layout,
            "unit_size": listing.UNIT_SIZE,  # with the source, it says where units end
            "tools": ", ".join(
                f"{tool} {version}" for tool, version in tool_versions(settings.backend).items()
            ),
        }
    )


def refuse_other_plan(
    old: dict[str, Any], new: dict[str, Any], found: Path, finished: bool
) -> None:
    """Raises UserError naming the first difference.

    found: what is there of a split: OUT/<split> or DEST/<split>.beton, or the work on it, which has
    not finished, OUT/.prep/<split>.
    """
    out = found.parent if finished else found.parent.parent
    left = "" if finished else f"{found.parent} and "
    for name, value in new.items():
        if name in CHOICES and name not in old:
            continue  # an older prep has not noted it; other pictures have another fingerprint
        if finished and name in WHILE_RUNNING:
            continue
        if old.get(name) != value:
            raise UserError(
                f"{found} was prepared {_difference(name, old.get(name), value)}; give another "
                f"folder than {out}, or remove {left}what is called {found.stem} in {out}"
            )


def _difference(name: str, old: object, new: object) -> str:
    if name == "source":
        return "from other pictures (names, sizes or places differ)"
    if name == "layout" and BETON in (old, new):
        return f"by `prep {'build' if old == BETON else 'resize'}`, which this is not"
    if name == "side":
        name = "size"  # as the option has it
    option = name.replace("_", "-") if name in NO_OPTIONS else "--" + name.replace("_", "-")
    return f"with {option} {old or 'none'}, this command says {new or 'none'}"


def tool_versions(backend: str) -> dict[str, str]:
    """The versions of what decides the bytes."""
    import PIL
    import simplejpeg

    from prep import scale

    tools = {"prep": __version__, "pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}
    if backend == "opencv-2012":
        tools["opencv"] = scale.opencv_version()
    return tools
