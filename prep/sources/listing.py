"""What a source holds: its classes, and where every picture of each split lies.

A listing keeps columns, about 100 bytes a picture, so that ImageNet's 1.28 million fit in a
fraction of a gigabyte. How its entries are read is the business of the module that listed them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prep.handover import UNLABELLED
from prep.program import UserError

SPLITS = ("train", "val", "test")
UNLABELLED_CLASS = "unlabelled"  # the folder of such pictures
UNIT_SIZE = 512  # pictures: one or two seconds of one core

# label; size in bytes of the file, 0 where the source does not say; which of the listing's
# containers holds it, -1 for a plain file; where in there: a byte offset in a tar, a row of a table
PLACE = np.dtype([("label", "<i4"), ("size", "<i8"), ("container", "<i4"), ("position", "<i8")])


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture as it came from its source: its bytes, or the reason why there are none."""

    name: str  # within the source, for people
    label: int
    data: bytes | None
    reason: str | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """Entries of a source in reading order: pictures, or whole archives of one class each."""

    names: list[str]  # relative to the source's folder, with slashes
    places: npt.NDArray[np.void]  # [N] of PLACE
    containers: tuple[str, ...] = ()  # files, relative to the source's folder

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        labels: npt.NDArray[np.int32] = self.places["label"]
        return labels

    def part(self, start: int, stop: int) -> Listing:
        return Listing(self.names[start:stop], self.places[start:stop], self.containers)

    def take(self, indices: npt.NDArray[np.int64]) -> Listing:
        names = [self.names[index] for index in indices.tolist()]
        return Listing(names, self.places[indices], self.containers)


class ListingBuilder:
    """Collects entries into a Listing."""

    def __init__(self, containers: tuple[str, ...] = ()) -> None:
        self._containers = containers
        self._names: list[str] = []
        self._columns = array("i"), array("q"), array("i"), array("q")

    def add(self, name: str, label: int, size: int, container: int = -1, position: int = 0) -> None:
        self._names.append(name)
        for column, value in zip(self._columns, (label, size, container, position), strict=True):
            column.append(value)

    def build(self) -> Listing:
        places = np.empty(len(self._names), PLACE)
        for field, column in zip(PLACE.names or (), self._columns, strict=True):
            places[field] = column
        return Listing(self._names, places, self._containers)


Read = Callable[[Path, Listing], Iterator[Picture]]  # of the source's folder and its entries


@dataclasses.dataclass(frozen=True)
class Split:
    """One split's entries and the function, one that can be pickled, that reads some of them."""

    listing: Listing
    read: Read
    in_order: bool = False  # to read in another order than the listing's would take for ever
    of_archives: bool = False  # an entry is a tar of one class; its pictures show when it is read
    bounds: npt.NDArray[np.int64] | None = None  # [U+1] of units, where the source has its own
    contents: tuple[str, ...] = ()  # a word on each container that changes with what is in it
    gaps: tuple[str, ...] = ()  # sentences: what it tells itself that it lacks, or has too much

    def unit_bounds(self) -> npt.NDArray[np.int64]:
        """Unit i holds the entries from bounds[i] up to bounds[i+1]."""
        if self.bounds is not None:
            return self.bounds
        step = 1 if self.of_archives else UNIT_SIZE
        return np.append(np.arange(0, len(self.listing), step), len(self.listing))

    def counts(self, classes: int) -> npt.NDArray[np.int64] | None:
        """Pictures of each class [classes]; None when only reading the archives would tell."""
        if self.of_archives:
            return None
        labels = self.listing.labels
        return np.bincount(labels[labels != UNLABELLED], minlength=classes)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """What was passed over; names are relative to the source's folder."""

    count: int = 0  # files: no pictures by their names, or not regular
    first: str = ""  # the name of one of them
    hidden: tuple[str, ...] = ()  # folders with pictures, beside the classes


@dataclasses.dataclass(frozen=True)
class Source:
    """What lies under a folder."""

    root: Path
    kind: str  # for people, such as "class folders"
    classes: tuple[str, ...]  # folder names, label order
    names: tuple[str, ...]  # for people, label order
    splits: dict[str, Split]
    skipped: Skipped = dataclasses.field(default_factory=Skipped)
    # How train was divided ("val_fraction"), that the class of clutter was kept ("clutter"), the
    # data set, named or recognised, whose names numbered classes have ("manifest").
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data_set: str = ""  # the name of its manifest, where its structure tells

    def keep(self, wanted: Sequence[str]) -> Source:
        """The same with the splits `wanted` alone. Raises UserError when it has none of them."""
        splits = {
            name: self.splits[name] for name in SPLITS if name in wanted and name in self.splits
        }
        if not splits:
            there = f"; it has {' and '.join(self.splits)}" if self.splits else ""
            raise UserError(
                f"{self.root} ({self.kind}) has no split {' or '.join(wanted)}{there}; give "
                "another --split"
            )
        return dataclasses.replace(self, splits=splits)

    def first_file(self, split: str) -> Path:
        """A file that holds pictures of a split; of an empty split, the source's folder."""
        listing = self.splits[split].listing
        if not len(listing):
            return self.root.absolute()
        container = int(listing.places["container"][0])
        name = listing.names[0] if container < 0 else listing.containers[container]
        return self.root.absolute() / name

    def fingerprint(self, split: str) -> str:
        """sha256 over the classes, what the containers hold, and the entries.

        Of an entry its name, size, label and place; of no file the time.
        """
        digest = hashlib.sha256("\n".join(self.classes).encode("utf-8", "surrogateescape"))
        listing, contents = self.splits[split].listing, self.splits[split].contents
        for name in (*listing.containers, *contents, *listing.names):
            digest.update(b"\n" + name.encode("utf-8", "surrogateescape"))
        digest.update(listing.places.tobytes())
        return digest.hexdigest()


def is_utf8(name: str) -> bool:
    """False for a file name of other bytes, which Python holds as lone surrogates."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
