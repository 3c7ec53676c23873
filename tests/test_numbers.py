from __future__ import annotations

import pytest

from prep.sources.numbers import missing_shards


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (["a-0.tar", "a-1.tar", "a-2.tar"], []),
        (["a-1.tar", "a-2.tar"], []),  # counted from one
        (["a-0.tar", "a-2.tar"], ["1 of 3 shards missing: a-1.tar"]),
        (["x/0000.parquet", "x/0003.parquet", "x/0001.parquet"], ["x/0002.parquet"]),
        (["a-0.tar", "b-2.tar"], []),  # two data sets
        (["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"], []),
        (["n01440764.tar", "n01443537.tar", "n01484850.tar"], []),  # wnids
        (["2019-10-03.tar", "2019-11-05.tar", "2020-01-01.tar"], []),
        (["cats.tar", "dogs.tar"], []),
        (["t-00000-of-00003.parquet"], ["2 of 3 shards missing: t-00001-of-00003.parquet, t-"]),
        (["t-00002-of-00002.parquet"], ["2 of 2 shards missing: t-00000-of-00002.parquet, t-"]),
        (["t-0-of-1.parquet", "u-1-of-2.parquet"], ["1 of 2 shards missing: u-0-of-2.parquet"]),
    ],
)
def test_missing_shards(files: list[str], missing: list[str]) -> None:
    found = list(missing_shards(files))
    assert len(found) == len(missing)
    assert all(part in sentence for part, sentence in zip(missing, found, strict=True))
