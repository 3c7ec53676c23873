"""What a run writes down while it trains: metrics.jsonl and TensorBoard events.

metrics.jsonl has a row `{"kind": "step", ...}` every STEP_INTERVAL steps with means over them, and
a row `{"kind": "epoch", ...}` an epoch. A resumed run first drops what lies after its checkpoint.
"""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from prep.files import whole_file

if TYPE_CHECKING:
    import torch
    from torch import nn

FILE_NAME = "metrics.jsonl"
STEP_INTERVAL = 20


class Metrics:
    """Appends rows to both; a context. The run has `step` steps and `epoch` epochs behind it."""

    def __init__(self, folder: Path, step: int, epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = folder / FILE_NAME
        # An epoch may have a row though its checkpoint was not written, and step as well.
        kept = [row for row in read(path) if row["step"] <= step and row.get("epoch", 0) <= epoch]
        with whole_file(path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")
        # TensorBoard forgets whole steps; of this one, a row may be kept and another one not.
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
        for row in kept:
            if row["step"] == step:
                self._draw(row["kind"], step, row)

    def row(self, kind: str, step: int, values: dict[str, Any]) -> None:
        # JSON knows no infinity, which the gradients of a step have that fp16's scaler left out.
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        row = {"kind": kind, "step": step} | finite
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        self._draw(kind, step, values)

    def _draw(self, kind: str, step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, float):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def graph(self, network: nn.Module, images: torch.Tensor) -> None:
        """The network's graph for TensorBoard, as it evaluates float32 images [B,3,crop,crop]."""
        with warnings.catch_warnings():
            # TensorBoard's graphs are made by torch.jit.trace, which torch would like to give up.
            warnings.filterwarnings("ignore", "`torch.jit.trace", FutureWarning)
            self._board.add_graph(network, images)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; none when there is no file. A torn last line is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the process was killed while it wrote
    return rows
