"""Which shards of a data set are missing, by the numbers in their names.

`train-00003-of-00294.parquet` says how many there should be. Of `train-0000.tar`, `train-0001.tar`
and so on, all between the first and the last should be there; fewer than half of them are taken for
names that happen to end in digits, such as wnids or dates.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence

from prep.program import EXAMPLES, counted, examples

_OF = re.compile(r"(?P<name>.*-)(?P<number>\d+)(?P<ending>-of-(?P<count>\d+)\.\w+)", re.ASCII)
_RUN = re.compile(r"(?P<name>.*?)(?P<number>\d+)(?P<ending>\.\w+)", re.ASCII)


def missing_shards(files: Sequence[str]) -> Iterator[str]:
    """A sentence on each run of shards that is not whole."""
    runs: dict[tuple[str, int, str], set[int]] = {}
    counts: dict[tuple[str, int, str], int] = {}
    for file in files:
        found = _OF.fullmatch(file) or _RUN.fullmatch(file)
        if found is None:
            continue
        run = found["name"], len(found["number"]), found["ending"]
        runs.setdefault(run, set()).add(int(found["number"]))
        if found.re is _OF:
            counts[run] = int(found["count"])
    for run, there in runs.items():
        if run in counts:
            yield from _missing(run, there, range(counts[run]))
        elif 2 * len(there) >= len(between := range(min(there), max(there) + 1)):
            yield from _missing(run, there, between)


def _missing(run: tuple[str, int, str], there: Collection[int], wanted: range) -> Iterator[str]:
    name, digits, ending = run
    lacking = len(wanted) - sum(number in wanted for number in there)
    if lacking:
        missing = (f"{name}{n:0{digits}}{ending}" for n in wanted if n not in there)
        shown = examples(list(itertools.islice(missing, EXAMPLES + 1)))
        yield f"{lacking:,} of {counted(len(wanted), 'shard')} missing: {shown}"
