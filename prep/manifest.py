"""What a well-known data set holds: archives, splits, classes, known oddities.

A manifest is a TOML file of data_manifests/; the files cite their figures. prep.comparison says
where a source contradicts one.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tomllib
from collections.abc import Collection, Iterable, Mapping
from importlib import resources
from pathlib import Path

from prep.program import UserError
from prep.toml_table import Table


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file as its publisher gives it out."""

    file: str
    holds: tuple[str, ...]  # splits, or "devkit"
    md5: str
    bytes: int | None  # None: not known


@dataclasses.dataclass(frozen=True)
class Split:
    images: int
    per_class: int | None  # None: differs, or is not known
    labelled: bool


@dataclasses.dataclass(frozen=True)
class KnownClass:
    folder: str  # a wnid, where the data set has them
    name: str  # for people
    images: Mapping[str, int]  # a split, where it is known
    optional: bool  # users leave it out


@dataclasses.dataclass(frozen=True)
class Oddity:
    """Files that are not what their names say, or that need a slower path."""

    kind: str
    about: str
    split: str
    files: tuple[str, ...]  # names, or paths where these are below a class; () where only counted
    count: int


@dataclasses.dataclass(frozen=True)
class PublishedStatistics:
    """Of the training split, RGB, 0..255; what prep.handover.Statistics holds of ours."""

    by: str
    source: str
    channel_mean: tuple[float, ...]  # [3]
    standard_deviations: tuple[float, ...]  # [3] along the axes, falling
    axes: tuple[tuple[float, ...], ...]  # [3][3] unit vectors of any sign


@dataclasses.dataclass(frozen=True)
class Manifest:
    name: str
    title: str
    homepage: str
    terms: str
    archives: tuple[Archive, ...]
    splits: Mapping[str, Split]
    classes: tuple[KnownClass, ...]  # label order, which is the order of the folders' names
    oddities: tuple[Oddity, ...]
    statistics: tuple[PublishedStatistics, ...] = ()

    def knows(self, classes: Iterable[str]) -> bool:
        return {known.folder for known in self.classes}.issuperset(classes)

    def images_by_class(self, split: str) -> dict[str, int]:
        """Of the classes of which it is known how many images the split has."""
        return {c.folder: c.images[split] for c in self.classes if split in c.images}

    def images(self, split: str, classes: Collection[str]) -> int | None:
        """Images of a split without the optional classes that are not among `classes`.

        None when the split, or how many images such a class has, is not known.
        """
        left_out = [c for c in self.classes if c.optional and c.folder not in classes]
        if split not in self.splits or any(split not in c.images for c in left_out):
            return None
        return self.splits[split].images - sum(c.images[split] for c in left_out)


# --------------------------------------------------------------------------- reading


def names() -> list[str]:
    """The manifests that come with the program."""
    files = resources.files("data_manifests").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def load(name_or_path: str) -> Manifest:
    """Read a manifest by its name or from a .toml file.

    Raises UserError naming the file, key and value of the first thing that is wrong.
    """
    if name_or_path in names():
        return _shipped(name_or_path)
    path = Path(name_or_path)
    if path.suffix != ".toml":
        raise UserError(
            f"no manifest is called {name_or_path!r}; there are {', '.join(names())}, or give a "
            ".toml file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"manifest {path} cannot be read: {error}; give a .toml file") from error
    return _parse(text, name_or_path)


@functools.cache
def _shipped(name: str) -> Manifest:
    text = (resources.files("data_manifests") / f"{name}.toml").read_text(encoding="utf-8")
    return _parse(text, name)


def _parse(text: str, origin: str) -> Manifest:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"manifest {origin} is not TOML: {error}") from error
    table = Table(values, f"manifest {origin}")
    splits = {name: _split(inner) for name, inner in table.tables("splits").items()}
    manifest = Manifest(
        name=table.take("name", str),
        title=table.take("title", str),
        homepage=table.take("homepage", str),
        terms=table.take("terms", str),
        archives=tuple(_archive(inner) for inner in table.list_of_tables("archives")),
        splits=splits,
        classes=tuple(
            _known_class(folder, inner, splits) for folder, inner in table.tables("classes").items()
        ),
        oddities=tuple(_oddity(inner) for inner in table.list_of_tables("oddities")),
        statistics=tuple(_statistics(inner) for inner in table.list_of_tables("statistics")),
    )
    table.end()
    _check(manifest, origin)
    return manifest


def _archive(table: Table) -> Archive:
    return table.ended(
        Archive(
            file=table.take("file", str),
            holds=table.strings("holds"),
            md5=table.take("md5", str),
            bytes=table.take_or("bytes", int, None),
        )
    )


def _split(table: Table) -> Split:
    return table.ended(
        Split(
            images=table.take("images", int),
            per_class=table.take_or("per_class", int, None),
            labelled=table.take_or("labelled", bool, True),
        )
    )


def _known_class(folder: str, table: Table, splits: Mapping[str, Split]) -> KnownClass:
    known = {split: table.take_or(split, int, splits[split].per_class) for split in splits}
    return table.ended(
        KnownClass(
            folder=folder,
            name=table.take("name", str),
            images={split: images for split, images in known.items() if images is not None},
            optional=table.take_or("optional", bool, False),
        )
    )


def _oddity(table: Table) -> Oddity:
    files = table.strings("files") if "files" in table else ()
    return table.ended(
        Oddity(
            kind=table.take("kind", str),
            about=table.take("about", str),
            split=table.take("split", str),
            files=files,
            count=len(files) or table.take("count", int),
        )
    )


def _statistics(table: Table) -> PublishedStatistics:
    return table.ended(
        PublishedStatistics(
            by=table.take("by", str),
            source=table.take("source", str),
            channel_mean=table.numbers("channel_mean", 3),
            standard_deviations=table.numbers("standard_deviations", 3),
            axes=tuple(table.numbers(f"axis_{number}", 3) for number in (1, 2, 3)),
        )
    )


def _check(manifest: Manifest, origin: str) -> None:
    """The figures have to agree with each other."""
    folders = [known.folder for known in manifest.classes]
    for before, after in itertools.pairwise(folders):
        if before > after:
            raise UserError(
                f"manifest {origin}: class {after} comes after {before}; sort the classes, a label "
                "is the rank of the folder's name"
            )
    for name, split in manifest.splits.items():
        counts = [known.images.get(name) for known in manifest.classes]
        known_counts = [count for count in counts if count is not None]
        if len(known_counts) == len(counts) and sum(known_counts) != split.images:
            raise UserError(
                f"manifest {origin}: {name} has {split.images} images, its classes add up to "
                f"{sum(known_counts)}; mend one of them"
            )
    for oddity in manifest.oddities:
        if oddity.split not in manifest.splits:
            raise UserError(
                f"manifest {origin}: oddity {oddity.kind} is in split {oddity.split!r}, which is "
                f"none of {', '.join(manifest.splits)}"
            )
