"""The part of prep.resize that runs in a worker: one unit of pictures, from files to files.

The unit's rows are written last, when its pictures are on the disk: their file is the journal.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import json
import os
import zlib
from pathlib import Path, PurePosixPath

from prep import images, prepared
from prep.files import whole_file
from prep.images import Settings
from prep.program import UserError
from prep.sources import Original


@dataclasses.dataclass(frozen=True)
class Unit:
    """Consecutive pictures of one split, and where they go."""

    number: int
    root: Path
    images_folder: Path
    rows_file: Path
    originals: tuple[Original, ...]
    names: tuple[str, ...]  # "<class>/<file>", one per original
    settings: Settings


def resize_unit(unit: Unit) -> tuple[int, int]:
    """Prepare the pictures of one unit; returns how many were done and how many rejected."""
    rows = [
        _resize_one(unit, original, name)
        for original, name in zip(unit.originals, unit.names, strict=True)
    ]
    _make_durable(unit.images_folder)
    with whole_file(unit.rows_file) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(rows), sum(row["status"] == "rejected" for row in rows)


def _resize_one(unit: Unit, original: Original, name: str) -> prepared.Row:
    class_name = PurePosixPath(name).parent.name
    row: prepared.Row = {
        "class": class_name,
        "label": original.label,
        "name": name,
        "source": os.fsencode(original.path).decode("utf-8", "backslashreplace"),
        "width": 0,
        "height": 0,
        "kind": "",
        "bytes": 0,
        "crc32": 0,
        "sha256": None,
        "status": "rejected",
    }
    settings = unit.settings
    if original.bytes > images.MAX_BYTES:
        return row | {"reason": images.too_many_bytes(original.bytes)}
    try:
        data = (unit.root / original.path).read_bytes()
        picture = images.prepare(data, settings)
    except OSError as error:
        return row | {"reason": f"cannot be read: {error.strerror}"}
    except images.RejectedImageError as error:
        return row | {"reason": str(error)}
    jpeg = images.encode_jpeg(picture.pixels, settings.quality)
    path = unit.images_folder / name
    try:
        path.write_bytes(jpeg)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; make room, then run the same command again: "
            "finished work is kept"
        ) from error
    return row | {
        "width": picture.width,
        "height": picture.height,
        "kind": picture.kind,
        "bytes": len(jpeg),
        "crc32": zlib.crc32(jpeg),
        "sha256": hashlib.sha256(jpeg).hexdigest(),
        "status": "ok",
        "reason": None,
    }


def read_rows(path: Path) -> list[prepared.Row]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["sha256"] = bytes.fromhex(row["sha256"]) if row["sha256"] else None
    return rows


def _make_durable(folder: Path) -> None:
    """Put a unit's files on disk in one call; an fsync for each would cost 0.2 ms a file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "syncfs"):  # not Linux
            os.sync()
        elif libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise UserError(
                f"cannot write {folder}: {os.strerror(code)}; make room, then run the same "
                "command again: finished work is kept"
            )
    finally:
        os.close(descriptor)
