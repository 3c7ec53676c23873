"""The command `prep check`: what a source holds, as tables and sentences or as JSON."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prep.cli_source import DIVIDE, manifest_named
from prep.cli_tell import tell_notes, tell_skipped
from prep.options import Clutter, Jobs, Json, ManifestName, SourceFolder, SplitName, Which
from prep.program import UserError, counted, say, say_json

if TYPE_CHECKING:
    from prep.check import Contents
    from prep.manifest import Manifest
    from prep.sources.listing import Source


def check(
    source: SourceFolder,
    manifest: ManifestName = None,
    split: SplitName = Which.all,
    clutter: Clutter = False,
    md5: Annotated[bool, typer.Option("--md5", help="Check archives' md5s too: minutes.")] = False,
    as_json: Json = False,
    jobs: Jobs = None,
) -> None:
    """Tell what a source holds, and what it lacks. Writes nothing."""
    from prep import check as stage
    from prep.sources import find_source
    from prep.tables import print_table, source_table

    known = manifest_named(manifest)
    found = find_source(source, split.splits, known, clutter, jobs)
    known = known or stage.manifest_of(found)
    tell_skipped(found)
    notes = stage.notes(found, f"`prep resize {DIVIDE}`" if split is Which.all else "")
    tell_notes(notes)
    contents = stage.look_inside(found, known, jobs)
    wrong = stage.contradictions(found, known, split.splits, contents.counts)
    if not as_json:
        print_table(source_table(found, known, contents))
    md5s: dict[str, bool] = {}
    for archive, right in stage.check_md5s(found, known) if md5 and known else ():
        md5s[archive] = right
        say(f"{archive}: md5 {'right' if right else 'WRONG'}", err=as_json)
        wrong += [] if right else [f"{archive} is not as published: its md5 is another"]
    if md5 and not md5s:
        say("md5: nothing to check, no archive with a known md5 is there", err=as_json)
    result = _checked(found, known, contents, md5s, wrong, notes) if as_json else {}
    for sentence in wrong:
        say(f"contradiction: {sentence}", err=as_json)
    if wrong:
        raise UserError(
            f"{source} {stage.verdict(known)} in {counted(len(wrong), 'way')}; mend it, or prepare "
            f"what is there with `prep resize {shlex.quote(str(source))} OUT --partial`",
            found=result,
        )
    if as_json:
        say_json(result)


def _checked(
    found: Source,
    known: Manifest | None,
    contents: Contents,
    md5s: dict[str, bool],
    wrong: list[str],
    notes: list[str],
) -> dict[str, Any]:
    """What `check --json` prints."""
    return {
        "source": str(found.root),
        "kind": found.kind,
        "manifest": known.name if known else None,
        "classes": len(found.classes),
        "splits": {
            name: {
                "images": int(counts.sum()) or len(found.splits[name].listing),
                "known": known.images(name, found.classes) if known else None,
                "images_by_class": dict(zip(found.classes, counts.tolist(), strict=True)),
            }
            for name, counts in contents.counts.items()
        },
        "oddities": [dataclasses.asdict(odd) for odd in contents.oddities],
        "md5_right": md5s,
        "contradictions": wrong,
        "notes": notes,
    }
