"""The layout "tar": OUT/<split>/<class>.tar, one a class, which WebDataset opens.

A sample is two members, `<stem>.jpg` and `<stem>.cls` (the label in decimal digits); no name in a
shard has another dot, because WebDataset cuts names at the first. Headers hold no time and no
user, so equal samples are equal bytes.
"""

from __future__ import annotations

import dataclasses
import io
import tarfile
from pathlib import Path

from prep.claim import Claim
from prep.files import whole_file
from prep.handover import UNLABELLED
from prep.program import UserError
from prep.resize_unit import part_file
from prep.sources.tars import members, size_of


@dataclasses.dataclass(frozen=True)
class Shard:
    """One class of a split, its samples in name order, and where their bytes lie now."""

    path: Path
    label: int
    names: list[str]  # "<class>/<stem>.jpg"
    parts: list[int]  # numbers of the units that prepared them
    offsets: list[int]  # bytes, in the unit's part file
    sizes: list[int]  # bytes
    work: Path  # the folder of the part files
    claim: Claim


def write_shard(shard: Shard) -> tuple[int, list[int]]:
    """Write the shard unless it is there; returns its label and each sample's offset in it."""
    if not shard.path.exists():
        with (
            shard.claim.held(),
            whole_file(shard.path) as partial,
            tarfile.open(partial, "w") as tar,
        ):
            for name, part, offset, size in zip(
                shard.names, shard.parts, shard.offsets, shard.sizes, strict=True
            ):
                with part_file(shard.work, part).open("rb") as file:
                    file.seek(offset)
                    data = file.read(size)
                if len(data) != size:
                    raise UserError(
                        f"{part_file(shard.work, part)} ends before {name} does: it has changed; "
                        f"remove {shard.work}, then run the same command again"
                    )
                _add(tar, name.partition("/")[2], data)
                if shard.label != UNLABELLED:
                    stem = name.partition("/")[2].removesuffix(".jpg")
                    _add(tar, f"{stem}.cls", str(shard.label).encode())
    with shard.path.open("rb") as file:
        at = {m.name: m.offset for m in members(file, 0, size_of(file))}
    return shard.label, [at[name.partition("/")[2]] for name in shard.names]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    tar.members.clear()  # type: ignore[attr-defined]  # else memory grows
