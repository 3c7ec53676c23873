"""The device of a run. Of little else, so that one that is not there is told within seconds."""

from __future__ import annotations

from typing import Literal

import torch

from prep.program import UserError
from train.processes import own_device

Device = Literal["cuda", "cpu", "mps"]


def choose_device(wanted: Device | None) -> torch.device:
    """The device asked for, or the best there is. Raises UserError when it is not there.

    On CUDA, float32 is then float32: convolutions would otherwise run in TF32.
    """
    torch.backends.cudnn.allow_tf32 = False
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted is None:
        wanted = "cuda" if available["cuda"] else "mps" if available["mps"] else "cpu"
    if not available[wanted]:
        raise UserError(
            f"--device {wanted}: torch {torch.__version__} finds no such device here; give "
            "--device cpu, or check the driver"
        )
    return own_device(torch.device(wanted))
