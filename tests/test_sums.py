"""Sums of an epoch: what several processes and a checkpoint in between leave as it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.processes import Processes
from train.sums import EpochSums

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Told(Processes):
    """One of two processes; the second is asked first, and tells the first its values."""

    sent: list[torch.Tensor] = dataclasses.field(default_factory=list)

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        if self.first:
            return values.add_(self.sent.pop())
        self.sent.append(values.clone())
        return values


def two() -> tuple[EpochSums, EpochSums]:
    first = Told(rank=0, world=2)
    return EpochSums(CPU, first), EpochSums(CPU, Told(rank=1, world=2, sent=first.sent))


def means(steps: list[tuple[float, float]], stopped_after: int | None) -> list[float]:
    """Of the first process, after steps whose sums of the loss each process has a part of."""
    first, second = two()
    for number, parts in enumerate(steps):
        if number == stopped_after:
            second.state()
            state = first.state()
            first, second = two()
            first.load(state)
            second.load(state)
        for sums, loss in zip((first, second), parts, strict=True):
            sums.add(torch.tensor([loss, 1.0, 0.0]), 8)
    second.take()
    found: list[float] = first.take().tolist()
    return found


losses = st.floats(2.0**-10, 2.0**12, width=32)


@given(st.lists(st.tuples(losses, losses), min_size=2, max_size=20), st.data())
def test_a_checkpoint_between_the_steps_of_two_processes_changes_no_bit(
    steps: list[tuple[float, float]], data: st.DataObject
) -> None:
    stopped_after = data.draw(st.integers(1, len(steps) - 1))
    whole = means(steps, None)
    assert means(steps, stopped_after) == whole
    assert whole[0] == np.sum(np.array(steps, np.float64)) / (8 * len(steps))
    assert whole[1:] == [2 / 8, 0.0]
