"""The development kit of ILSVRC-2012: which class each validation picture has.

Takes ILSVRC2012_devkit_t12.tar.gz, read in place, or the folder it unpacks to. The kit numbers
synsets by an ILSVRC id of its own, 1 to 1000 for the classes and more for those above them in
WordNet; that is not the rank of the wnid. data/meta.mat has the wnid of an id, and line n of
data/ILSVRC2012_validation_ground_truth.txt the id of ILSVRC2012_val_<n>.JPEG, n in eight digits.
Source: the kit's readme.txt.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import re
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from prep.matfile import MatError, read_structs
from prep.program import UserError

META = PurePosixPath("data/meta.mat")
GROUND_TRUTH = PurePosixPath("data/ILSVRC2012_validation_ground_truth.txt")
FIELDS = ("ILSVRC2012_ID", "WNID", "words", "num_children")
CLASSES = range(1, 1001)  # their ids
WNID = re.compile(r"n[0-9]{8}")  # becomes a folder's name
# Bytes that are never read past; the packed kit has 2.5 MB, 50,000 ids take 0.25 MB.
KIT_LIMIT = 64 * 2**20
LIMITS = {META: KIT_LIMIT, GROUND_TRUTH: 2**20}
AGAIN = "get ILSVRC2012_devkit_t12.tar.gz from image-net.org again"


@dataclasses.dataclass(frozen=True)
class Devkit:
    wnids: dict[int, str]  # by ILSVRC id, classes alone
    names: dict[str, str]  # by wnid: synonyms, separated by commas
    labels: dict[str, str]  # wnid by file name, such as ILSVRC2012_val_00000001.JPEG


def read_devkit(path: Path) -> Devkit:
    """Raises UserError when the kit is missing, damaged, too large or contradicts itself."""
    read = _read_folder if path.is_dir() else _read_archive
    files = read(path)
    wnids, names = _classes(files[META], path)
    return Devkit(wnids, names, _labels(files[GROUND_TRUTH], wnids, path))


# --------------------------------------------------------------------------- files


def _read_folder(path: Path) -> dict[PurePosixPath, bytes]:
    read = {}
    for wanted, limit in LIMITS.items():
        file = path / wanted
        if not file.is_file():
            raise UserError(f"{file} is missing; give the folder that the devkit unpacks to")
        with file.open("rb") as opened:
            read[wanted] = opened.read(limit + 1)
        _check_size(len(read[wanted]), limit, f"{file}")
    return read


def _read_archive(path: Path) -> dict[PurePosixPath, bytes]:
    """Nothing is unpacked to the disk."""
    if not path.is_file():
        raise UserError(
            f"{path} is missing; give the devkit's archive, or the folder it unpacks to"
        )
    try:
        with gzip.open(path) as file:
            unpacked = file.read(KIT_LIMIT + 1)
        _check_size(len(unpacked), KIT_LIMIT, f"{path}, unpacked,")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            return {wanted: _member(tar, wanted, path) for wanted in LIMITS}
    # ValueError and RecursionError: hostile headers, which tarfile follows by recursion.
    except (
        gzip.BadGzipFile,
        EOFError,
        zlib.error,
        tarfile.TarError,
        ValueError,
        RecursionError,
    ) as error:
        raise UserError(f"{path} is no whole .tar.gz ({error}); {AGAIN}") from error


def _member(tar: tarfile.TarFile, wanted: PurePosixPath, path: Path) -> bytes:
    """The kit's files lie in a folder of the archive."""
    for member in tar:
        if member.size < 0:  # tarfile would go back by as much, for ever
            raise tarfile.ReadError(f"{member.name} has {member.size} bytes")
        if PurePosixPath(member.name).parts[-2:] == wanted.parts and member.isreg():
            _check_size(member.size, LIMITS[wanted], f"{path}: {wanted}")
            file = tar.extractfile(member)
            return file.read() if file else b""
    raise UserError(f"{path} holds no {wanted}; {AGAIN}")


def _check_size(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise UserError(f"{what} has more than {limit:,} bytes, the devkit's own has not; {AGAIN}")


# --------------------------------------------------------------------------- contents


def _classes(meta: bytes, path: Path) -> tuple[dict[int, str], dict[str, str]]:
    """The synsets without children are the classes."""
    try:
        synsets = read_structs(meta, "synsets", FIELDS, limit=KIT_LIMIT)
    except MatError as error:
        raise UserError(f"{path}: {META} cannot be read: {error}; {AGAIN}") from error
    wnids: dict[int, str] = {}
    names: dict[str, str] = {}
    for synset in synsets:
        number, wnid, words, children = (synset[field] for field in FIELDS)
        if children != 0:
            continue
        valid = isinstance(number, int) and number in CLASSES and WNID.fullmatch(str(wnid))
        if not valid or number in wnids or wnid in names:
            raise UserError(
                f"{path}: {META} has class {number!r:.20} with wnid {wnid!r:.20}; ids go from 1 to "
                f"{CLASSES[-1]}, a wnid is n and eight digits, each is there once; {AGAIN}"
            )
        wnids[int(number)] = str(wnid)
        names[str(wnid)] = str(words)
    if not wnids:
        raise UserError(f"{path}: {META} has no class, a synset without children; {AGAIN}")
    return wnids, names


def _labels(ground_truth: bytes, wnids: dict[int, str], path: Path) -> dict[str, str]:
    labels: dict[str, str] = {}
    for number, line in enumerate(ground_truth.splitlines(), 1):
        text = line.strip()
        wnid = wnids.get(int(text)) if text.isdigit() and len(text) < 9 else None
        if wnid is None:
            raise UserError(
                f"{path}: line {number} of {GROUND_TRUTH} is {text[:20]!r}, which is the ILSVRC id "
                f"of no class of {META}; {AGAIN}"
            )
        labels[f"ILSVRC2012_val_{number:08d}.JPEG"] = wnid
    if not labels:
        raise UserError(f"{path}: {GROUND_TRUTH} is empty; {AGAIN}")
    return labels
