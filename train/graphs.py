"""A whole update as one CUDA graph: forward, loss, backward and SGD's step start with one call.

A graph repeats kernels with the addresses and numbers that they were recorded with. What differs
from update to update is therefore read from memory that the graph has for it: the batch, the step's
number, the learning rates. Layers that are frozen are left out of a graph, so that it is recorded
anew when one freezes.

Before a graph is used, one update is computed in both ways. Where they differ, or nothing can be
recorded, the run goes on without graphs and says so. Source: "CUDA Graphs" in PyTorch's notes on
CUDA semantics.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from prep.program import first_line

# Both ways run the same kernels; what is added up by atomic operations differs in its rounding.
TOLERANCE = 1e-3  # of what an update changes


class Given(NamedTuple):
    """What an update is of; all on the device."""

    images: torch.Tensor  # [B,3,crop,crop]
    labels: torch.Tensor  # int64 [B]
    samples: torch.Tensor  # int64 [B], indices in the data set
    step: torch.Tensor  # int64 []


Tensors = list[torch.Tensor]
Update = Callable[[Given], torch.Tensor]  # gives sums, float32 [3]
# Runs its argument, maybe several times, and gives the sums that a call of the second one renews.
Record = Callable[[Callable[[], torch.Tensor]], tuple[torch.Tensor, Callable[[], None]]]


def record_cuda(work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):  # libraries get their memory for a stream with the first call
        work()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    # The loader's threads go on, and may ask for memory meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        sums = work()
    return sums, graph.replay


@dataclasses.dataclass(frozen=True)
class _Recorded:
    frozen: tuple[bool, ...]  # SGD's groups
    given: Given
    rates: list[torch.Tensor]  # of SGD's groups, float32 []
    sums: torch.Tensor
    gradients: list[torch.Tensor | None]
    replay: Callable[[], None]


class Graphs:
    """Updates of `images` images; those of another size, an epoch's last batch, have no graph."""

    def __init__(
        self,
        network: nn.Module,
        sgd: torch.optim.SGD,
        images: int,
        say: Callable[[str], None],
        record: Record = record_cuda,
    ) -> None:
        self._network, self._sgd, self._images = network, sgd, images
        self._say, self._record_work = say, record
        self._recorded: _Recorded | None = None
        self.failure = ""  # why there are none

    def step(self, update: Update, given: Given) -> torch.Tensor:
        """Do `update`; the same function with every call."""
        if self.failure or len(given.labels) != self._images:
            return update(given)
        if self._recorded is None or self._recorded.frozen != self._frozen():
            return self._first(update, given)
        return self._replayed(self._recorded, given)

    def _first(self, update: Update, given: Given) -> torch.Tensor:
        """Record; the update is the graph's, or, where that is not the same, `update`'s own."""
        before = self._copies()
        plain = [[update(given)], *self._copies()]
        try:
            self._put_back(before)
            self._recorded = None  # its memory, before more is taken
            self._recorded = self._record(update, given)
            self._put_back(before)
            replayed = [[self._replayed(self._recorded, given)], *self._changed()]
            zeros = [torch.zeros_like(plain[0][0])]
            if all(map(_alike, replayed, plain, [zeros, *before])):
                self._say("CUDA graph of an update recorded")
                return replayed[0][0]
            self.failure = "it gives another update"
        except Exception as error:  # of CUDA, cuDNN, compiled kernels
            self.failure = first_line(error)
        self._say(f"CUDA graph of an update: {self.failure}; the run goes on without")
        self._recorded = None
        self._put_back(plain[1:])
        return plain[0][0]

    def _record(self, update: Update, given: Given) -> _Recorded:
        kept = Given(*(values.clone() for values in given))
        rates = [torch.zeros((), device=kept.images.device) for _ in self._sgd.param_groups]
        frozen = self._frozen()
        with self._rates_from(rates):
            sums, replay = self._record_work(lambda: update(kept))
        return _Recorded(frozen, kept, rates, sums, [p.grad for p in self._parameters()], replay)

    @contextlib.contextmanager
    def _rates_from(self, rates: list[torch.Tensor]) -> Iterator[None]:
        """SGD reads its learning rates from memory."""
        groups = self._sgd.param_groups
        numbers = [group["lr"] for group in groups]
        for group, rate in zip(groups, rates, strict=True):
            if group["lr"] != 0:
                rate.fill_(group["lr"])
                group["lr"] = rate
        try:
            yield
        finally:
            for group, number in zip(groups, numbers, strict=True):
                group["lr"] = number

    def _replayed(self, recorded: _Recorded, given: Given) -> torch.Tensor:
        for kept, values in zip(recorded.given, given, strict=True):
            kept.copy_(values)
        for group, rate in zip(self._sgd.param_groups, recorded.rates, strict=True):
            rate.fill_(group["lr"])
        recorded.replay()
        # An update without the graph, of a last batch, has left gradients of its own.
        for parameter, gradient in zip(self._parameters(), recorded.gradients, strict=True):
            parameter.grad = gradient
        return recorded.sums.clone()

    def _frozen(self) -> tuple[bool, ...]:
        return tuple(group["lr"] == 0 for group in self._sgd.param_groups)

    def _parameters(self) -> list[nn.Parameter]:
        return list(self._network.parameters())

    def _changed(self) -> list[Tensors]:
        """What an update changes: weights, velocities, and batch norm's running figures."""
        weights = [parameter.detach() for parameter in self._parameters()]
        velocities = [self._sgd.state[p]["momentum_buffer"] for p in self._parameters()]
        found = weights, velocities, list(self._network.buffers())
        return [values for values in found if values]  # not every network has buffers

    def _copies(self) -> list[Tensors]:
        return [[values.clone() for values in each] for each in self._changed()]

    def _put_back(self, copies: list[Tensors]) -> None:
        for values, before in zip(self._changed(), copies, strict=True):
            torch._foreach_copy_(values, before)


def _alike(found: Tensors, wanted: Tensors, before: Tensors) -> bool:
    """Whether two results differ by little of what the wanted one has changed."""
    return bool(_distance(found, wanted) <= TOLERANCE * _distance(wanted, before))


def _distance(some: Tensors, others: Tensors) -> torch.Tensor:
    squares = [(a - b).float().square().sum() for a, b in zip(some, others, strict=True)]
    return torch.stack(squares).sum().sqrt()
