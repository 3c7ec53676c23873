"""What a prepared set holds: OUT of `prep resize`, DEST of `prep build`, or what came of them.

    OUT/<split>/, <split>.parquet, <split>.json, train.stats.npz
    DEST/<split>.beton, <split>.parquet, <split>.json, train.stats.npz
    rejects.jsonl, in both; alone where too many were rejected, so that nothing was finished

Of a manifest's rows only numbers and codes are kept, 20 bytes a picture; a row that is shown is
read again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prep import handover, prepared
from prep.beton import Beton, open_beton
from prep.handover import Card, Statistics
from prep.images import EXTENSIONS
from prep.order import CLASS
from prep.place import Place, read_unchanged
from prep.prepared import Row
from prep.program import UserError
from prep.progress import SOON, progress
from prep.sources.listing import SPLITS

USUAL = "JPEG YCbCr"  # the kind of nearly every picture of ImageNet
CALLED = ", called "  # in a kind: of a file whose ending says otherwise
JPEG_ENDINGS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
COLUMNS = ["label", "width", "height", "kind", "status", "source"]
KEPT = 6  # rejected originals of one reason, to be looked at
_NUMBER = re.compile(r"\d+(,\d{3})*")


@dataclasses.dataclass(frozen=True)
class Split:
    """One split: the card, and every original [N] in the manifest's order, label, then name."""

    folder: Path  # OUT/<split> or, of a beton, DEST/<split>, which is not there
    card: Card
    plan: dict[str, Any]  # what it was asked to be (prep.plan)
    ok: npt.NDArray[np.bool_]  # [N] False: rejected
    labels: npt.NDArray[np.int32]  # [N]
    widths: npt.NDArray[np.int32]  # [N] of the original, pixels; 0 where it could not be read
    heights: npt.NDArray[np.int32]  # [N]
    kinds: list[str]  # every kind that there is, such as "PNG RGBA, called .JPEG"
    kind_of: npt.NDArray[np.int32]  # [N] in `kinds`
    beton: Beton | None  # where no folder holds the pictures

    @property
    def name(self) -> str:
        return self.folder.name

    def rows(self, numbers: list[int]) -> list[Row]:
        """These rows of the manifest, whole."""
        path, found = prepared.manifest_path(self.folder), dict[int, Row]()
        with pq.ParquetFile(path) as file:
            first = 0
            for group in range(file.num_row_groups):
                stop = first + file.metadata.row_group(group).num_rows
                inside = [number for number in numbers if first <= number < stop]
                if inside:
                    places = pa.array([number - first for number in inside])
                    taken = file.read_row_group(group).take(places).to_pylist()
                    found |= zip(inside, taken, strict=True)
                first = stop
        return [found[number] for number in numbers]

    def jpeg(self, number: int, row: Row) -> bytes:
        """The bytes of the prepared picture of a row. Raises UserError when it has changed."""
        if self.beton is None:
            place = (
                Place(self.folder, row["name"], 0, None, row["crc32"])
                if row["shard"] is None
                else Place(self.folder, row["shard"], row["offset"], row["bytes"], row["crc32"])
            )
            return read_unchanged(place)
        sample, layout = int(self.ok[:number].sum()), self.beton.layout
        with self.beton.path.open("rb") as file:
            file.seek(int(layout.ptr[sample]))
            data = file.read(int(layout.size[sample]))
        if zlib.crc32(data) != row["crc32"]:
            raise UserError(f"{self.beton.path}: sample {sample} has changed; run `prep verify`")
        return data


@dataclasses.dataclass
class Reason:
    """Why originals were rejected; the numbers in the reason may differ."""

    split: str
    pattern: str
    count: int = 0
    first: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # source, reason


@dataclasses.dataclass(frozen=True)
class Contents:
    """A prepared set. `faults` are sentences on what of it could not be read."""

    folder: Path
    splits: list[Split]
    reasons: list[Reason]  # most frequent first
    statistics: Statistics | None
    faults: list[str]


def read_contents(folder: Path) -> Contents:
    """Raises UserError when `folder` holds no prepared set, and no rejects of one."""
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {state}; give OUT of `prep resize` or DEST of `prep build`")
    names = [name for name in SPLITS if prepared.manifest_path(folder / name).exists()]
    rejects = folder / "rejects.jsonl"
    if not names and not rejects.is_file():
        above = folder.resolve()
        if prepared.manifest_path(above).exists():
            raise UserError(f"{folder} is one split of a prepared set; give {above.parent}")
        raise UserError(
            f"{folder} holds no prepared set, neither train.parquet nor rejects.jsonl is there; "
            "give OUT of `prep resize` or DEST of `prep build`"
        )
    faults: list[str] = []
    splits = []
    for name in names:
        try:
            with progress(f"read {name}.parquet", None, after=SOON):
                splits.append(_read_split(folder / name))
        except UserError as error:
            if not splits and name == names[-1]:
                raise  # nothing can be shown
            faults.append(str(error))
    try:
        reasons = _reasons(rejects)
    except (OSError, ValueError, KeyError, TypeError) as error:
        faults.append(f"{rejects} cannot be read ({error}); what was rejected is not shown")
        reasons = []
    statistics = None
    path = prepared.split_stats_path(folder / "train")
    train = next((split.card for split in splits if split.name == "train"), None)
    if train is not None and path.exists():
        try:
            statistics = handover.read_statistics_of(train, path)
        except UserError as error:
            faults.append(str(error))
    return Contents(folder, splits, reasons, statistics, faults)


def _read_split(folder: Path) -> Split:
    card = handover.read_card(prepared.split_card_path(folder))
    plan = prepared.plan_of(folder)
    beton = None
    if not folder.is_dir():
        beton = _beton_of(folder, card)
    path = prepared.manifest_path(folder)
    parts: list[tuple[Any, ...]] = []
    codes: dict[str, int] = {}
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(prepared.ROW_GROUP, columns=COLUMNS):
                kinds = [codes.setdefault(kind, len(codes)) for kind in _kinds(batch)]
                parts.append(
                    (
                        pc.equal(batch["status"], "ok").to_numpy(zero_copy_only=False),
                        *(batch[name].to_numpy() for name in ("label", "width", "height")),
                        np.array(kinds, np.int32),
                    )
                )
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged ({error}); prepare the data again") from error
    ok, labels, widths, heights, kind_of = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    if ok.sum() != card.samples or (beton is not None and len(beton) != card.samples):
        raise UserError(
            f"{path} has {int(ok.sum())} samples, the card beside it says {card.samples}; prepare "
            "the data again"
        )
    return Split(folder, card, plan, ok, labels, widths, heights, list(codes), kind_of, beton)


def _beton_of(folder: Path, card: Card) -> Beton:
    """The beton in the folder's place. Raises UserError when its samples are not the rows'."""
    path = folder.with_name(folder.name + ".beton")
    beton = open_beton(path)
    if (card.mode, card.order) != ("jpg", CLASS):
        raise UserError(
            f"{folder} is gone, and {path} has not its JPEGs in the manifest's order (mode "
            f"{card.mode}, order {card.order}); put {folder} back, or give DEST of `prep build`"
        )
    return beton


def _kinds(batch: pa.RecordBatch) -> list[str]:
    """The kind of each picture, with its ending where that says JPEG and it is none, or not."""
    columns = batch["kind"].to_pylist(), batch["source"].to_pylist()
    return [_kind(kind, source) for kind, source in zip(*columns, strict=True)]


def _kind(kind: str, source: str) -> str:
    ending = os.path.splitext(source)[1]  # noqa: PTH122 (often)
    if not kind or ending.lower() not in EXTENSIONS:
        return kind
    called_jpeg, jpeg = ending.lower() in JPEG_ENDINGS, kind.startswith(("JPEG", "MPO"))
    return kind if called_jpeg == jpeg or kind == "PPM RGB" else f"{kind}{CALLED}{ending}"


def _reasons(path: Path) -> list[Reason]:
    """The lines of rejects.jsonl, those of a split that differ in numbers alone together."""
    found: dict[tuple[str, str], Reason] = {}
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as lines:
        for entry in map(json.loads, lines):
            pattern = _NUMBER.sub("N", entry["reason"])
            key = entry["split"], pattern
            group = found.setdefault(key, Reason(entry["split"], pattern))
            group.count += 1
            if len(group.first) < KEPT:
                group.first.append((entry["path"], entry["reason"]))
    for group in found.values():
        if len({reason for _, reason in group.first}) == 1:
            group.pattern = group.first[0][1]
    return sorted(found.values(), key=lambda group: -group.count)
