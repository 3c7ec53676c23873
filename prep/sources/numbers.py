"""Which shards of a data set are missing, by the numbers in their names.

`train-00003-of-00294.parquet` says how many there should be. Of `train-0000.tar`, `train-0001.tar`
and so on, all between the first and the last should be there; fewer than FEWEST of a name, or less
than half of them, are taken for names that happen to end in digits, such as wnids or years.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from prep.program import EXAMPLES, counted, examples

FEWEST = 4
_OF = re.compile(
    r"(?P<name>.*-)(?P<number>\d{1,18})-of-(?P<count>\d{1,18})(?:-[0-9a-f]{16})?(?P<ending>\.\w+)",
    re.ASCII,
)
_RUN = re.compile(r"(?P<name>.*?)(?P<number>\d{1,18})(?P<ending>\.\w+)", re.ASCII)


def missing_shards(files: Sequence[str]) -> Iterator[str]:
    """A sentence on each run of shards that is not whole."""
    runs: dict[tuple[str, ...], dict[int, str]] = {}  # of each, the files by their numbers
    for file in files:
        found = _OF.fullmatch(file) or _RUN.fullmatch(file)
        if found is not None:
            groups = found.groupdict()
            number = int(groups.pop("number"))
            runs.setdefault(tuple(groups.values()), {})[number] = found["number"]
    for (name, *count, last_part), there in runs.items():
        ending = f"-of-{count[0]}{last_part}" if count else last_part
        first, last = min(there), max(there)
        if count:
            start = int(last == int(count[0]))  # some count from one
            wanted = range(start, int(count[0]) + start)
        else:
            wanted = range(first, last + 1)
            if len(there) < FEWEST or 2 * len(there) < len(wanted):
                continue
        lacking = len(wanted) - sum(number in wanted for number in there)
        if lacking:
            digits = len(there[first])
            missing = (f"{name}{n:0{digits}}{ending}" for n in wanted if n not in there)
            shown = examples(list(itertools.islice(missing, EXAMPLES + 1)))
            yield f"{lacking:,} of {counted(len(wanted), 'shard')} missing: {shown}"
