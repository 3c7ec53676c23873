"""The processes of a run: one, or those that torchrun started, one to a device.

torchrun says through the environment which one this is (RANK, WORLD_SIZE, LOCAL_RANK). All of them
compute the same thing: each batch is divided among them, gradients and figures are added up.
Process 0 alone writes and speaks.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed

from prep.program import UserError, first_line

PATIENCE = datetime.timedelta(minutes=10)  # for the others, before a process gives them up
RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
GLOO = "/gloo/"  # in its errors, which are of no class of their own


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process among `world`; `flags` is a group that answers without waiting for a GPU."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0  # among those on this machine: the number of its GPU
    flags: Any = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.world > 1:
            distributed.all_reduce(
                values, group=self.flags if values.device.type == "cpu" else None
            )
        return values

    def take_from_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """In place: all processes have those of process 0 then."""
        if self.world > 1:
            for values in tensors:
                distributed.broadcast(values, 0)

    def largest(self, number: int) -> int:
        """The largest of all processes' numbers. It waits for the processes, not for their GPUs."""
        if self.world == 1:
            return number
        value = torch.tensor(number)
        distributed.all_reduce(value, distributed.ReduceOp.MAX, group=self.flags)
        return int(value.item())

    def same(self, number: int) -> bool:
        """Whether all processes have the same number; all call it and have the same answer."""
        highest, lowest = self.largest(number), -self.largest(-number)
        return highest == lowest


ALONE = Processes()


def from_environment(environment: Mapping[str, str] = os.environ) -> tuple[int, int, int]:
    """Rank, world and local rank as torchrun sets them; 0, 1, 0 without it.

    Raises UserError naming a value that cannot be.
    """
    if "WORLD_SIZE" not in environment:
        return 0, 1, 0
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        rank, world, local_rank = (int(environment[name]) for name in names)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"the environment has WORLD_SIZE={environment['WORLD_SIZE']!r} and not all of "
            f"{', '.join(names)} as numbers; start with torchrun, or unset WORLD_SIZE"
        ) from error
    if not (0 <= rank < world and local_rank >= 0):
        raise UserError(f"RANK={rank} is none of WORLD_SIZE={world} processes; start with torchrun")
    return rank, world, local_rank


def begun_again(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun or SLURM has started this run before."""
    return any(environment.get(name, "0") != "0" for name in RESTARTS)


def own_device(device: torch.device) -> torch.device:
    """This process's among the GPUs of its machine. Raises UserError when there are too few."""
    _, world, local_rank = from_environment()
    if device.type != "cuda" or world == 1:
        return device
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise UserError(
            f"process {local_rank} of this machine has no GPU of its own: there are {count}; give "
            f"torchrun --nproc-per-node {count}"
        )
    own = torch.device("cuda", local_rank)
    torch.cuda.set_device(own)
    return own


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """This process among those of the run; nccl adds up on GPUs, gloo elsewhere.

    Raises UserError when it cannot reach the others, or they are gone before the block ends.
    """
    rank, world, local_rank = from_environment()
    if world == 1:
        yield Processes()
        return
    try:
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise UserError(
            f"process {rank} of {world} cannot reach the others ({reason}); see whether "
            f"MASTER_ADDR={os.environ.get('MASTER_ADDR')} answers, and start with torchrun"
        ) from error
    try:
        flags = distributed.new_group(backend="gloo", timeout=PATIENCE)
        yield Processes(rank, world, local_rank, flags)
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and GLOO not in str(error):
            raise
        raise UserError(
            f"process {rank} of {world} has lost the others ({first_line(error)}); the same "
            "command goes on from the last checkpoint"
        ) from error
    finally:
        distributed.destroy_process_group()
