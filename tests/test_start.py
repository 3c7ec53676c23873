"""What a run begins with. Resuming is tested in test_loop, with whole runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prep.program import UserError
from train.start import choose_device

CPU = torch.device("cpu")


@pytest.mark.parametrize("wanted", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(
    wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"--device {wanted}: .*--device cpu"):
        choose_device(wanted)
    assert choose_device(None) == choose_device("cpu") == CPU


def test_the_best_device_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device(None) == torch.device("cuda")
    assert choose_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None) == torch.device("mps")
