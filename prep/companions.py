"""What lies beside a beton: card, records and statistics, checked before and written after it.

All of it is on the disk, under temporary names, before any of it gets its own: the disk may be full
by then. The old card goes before the rest changes and the new one comes last, so that beside a card
with a sha256 all is of one make.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

from prep import handover, prepared
from prep.files import make_durable, refuse_other_kinds, target_of, whole_file
from prep.handover import Card, Records, Statistics
from prep.prepared import PreparedSplit
from prep.program import UserError


def check_names(split: PreparedSplit, path: Path) -> None:
    """Raises UserError when a beton of `split` cannot be `path`, or have its companions beside it.

    They are named after the beton, may replace files only, and none of another prepared split.
    """
    if path.suffix != ".beton":
        raise UserError(f"{path} should be called NAME.beton: its companions are named after it")
    namesake = path.with_suffix("")
    if prepared.manifest_path(namesake).exists() and namesake.resolve() != split.folder.resolve():
        raise UserError(
            f"{path} would put its card over that of the prepared split {namesake}; give another "
            "name or folder"
        )
    for place in (handover.card_path(path), handover.records_path(path), handover.stats_path(path)):
        refuse_other_kinds(place)
    _refuse_another_split(split.card.split, path)


def _refuse_another_split(split: str, path: Path) -> None:
    """The beton of train is not lost to a slip of the pen; a damaged card tells nothing."""
    if not path.exists():
        return
    try:
        there = handover.read_card(handover.card_path(path)).split
    except UserError:
        return
    if there != split:
        raise UserError(
            f"{path} is of the split {there}, this would put {split} in its place; give another "
            "name, or remove it"
        )


def statistics_of(split: PreparedSplit) -> Statistics | None:
    """The training split's statistics, to lie beside its beton; None for other splits."""
    path = prepared.split_stats_path(split.folder)
    if split.card.split != "train" or not path.exists():
        return None
    return handover.read_statistics_of(split.card, path)


@contextlib.contextmanager
def written_beside(path: Path, records: Records, statistics: Statistics | None) -> Iterator[str]:
    """Write records and statistics; they get their names when the block ends well.

    Yields the sha256 of the records.
    """
    with contextlib.ExitStack() as files:
        partial = files.enter_context(whole_file(handover.records_path(path)))
        handover.write_records(records, partial)
        make_durable(partial)
        sha256 = hashlib.sha256(partial.read_bytes()).hexdigest()
        if statistics is not None:
            partial = files.enter_context(whole_file(handover.stats_path(path)))
            handover.write_statistics(statistics, partial)
            make_durable(partial)
        yield sha256
        if statistics is None:  # those of an earlier beton of this name are of other data
            target_of(handover.stats_path(path)).unlink(missing_ok=True)


@contextlib.contextmanager
def new_card(card: Card, split: PreparedSplit, path: Path) -> Iterator[None]:
    """Withdraw the old card of a beton; `card` takes its place when the block ends well.

    Beside the prepared split itself (OUT/train as OUT/train.beton) one card serves both, and only
    its checksums go.
    """
    place = handover.card_path(path)
    if path.with_suffix("").resolve() == split.folder.resolve():
        without = dataclasses.replace(split.card, sha256=None, records_sha256=None)
        handover.write_card(without, place)
    else:
        target_of(place).unlink(missing_ok=True)
    with whole_file(place) as partial:
        partial.write_text(handover.card_text(card), encoding="utf-8")
        make_durable(partial)
        yield
