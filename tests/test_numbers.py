from __future__ import annotations

import pytest

from prep.sources.numbers import missing_shards


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (["a-0.tar", "a-1.tar", "a-2.tar"], []),
        (["a-1.tar", "a-2.tar"], []),  # counted from one
        (["a-0.tar", "a-2.tar"], []),  # too few to tell
        (["a-0.tar", "a-2.tar", "a-3.tar", "a-4.tar"], ["1 of 5 shards missing: a-1.tar"]),
        (["a-8.tar", "a-9.tar", "a-11.tar", "a-12.tar"], ["1 of 5 shards missing: a-10.tar"]),
        ([f"x/000{n}.parquet" for n in (0, 1, 2, 4)], ["x/0003.parquet"]),
        ([f"t-{n}-of-12.parquet" for n in range(12)], []),
        ([f"t-{n}-of-4.tar" for n in (1, 2, 3, 4)], []),
        ([f"t-{n}-of-4.tar" for n in (1, 3, 4)], ["1 of 4 shards missing: t-2-of-4.tar"]),
        (["t-00000-of-00002-0123456789abcdef.parquet"], ["missing: t-00001-of-00002.parquet"]),
        ([f"t-0-of-{10**17}.parquet"], [f"{10**17 - 1:,} of {10**17:,} shards missing"]),
        ([f"t-0-of-{10**30}.parquet"], []),
        (["a-0.tar", "b-2.tar"], []),  # two data sets
        (["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"], []),
        (["n01440764.tar", "n01443537.tar", "n01484850.tar"], []),  # wnids
        (["2019-10-03.tar", "2019-11-05.tar", "2020-01-01.tar"], []),
        (["cats.tar", "dogs.tar"], []),
        (["t-00000-of-00003.parquet"], ["2 of 3 shards missing: t-00001-of-00003.parquet, t-"]),
        (["t-00002-of-00002.parquet"], ["1 of 2 shards missing: t-00001-of-00002.parquet"]),
        (["t-0-of-1.parquet", "u-1-of-2.parquet"], ["1 of 2 shards missing: u-0-of-2.parquet"]),
    ],
)
def test_missing_shards(files: list[str], missing: list[str]) -> None:
    found = list(missing_shards(files))
    assert len(found) == len(missing)
    assert all(part in sentence for part, sentence in zip(missing, found, strict=True))
