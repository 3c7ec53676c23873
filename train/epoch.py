"""One epoch of training, from the step it was stopped at to its end or to a signal.

Every STEP_INTERVAL steps a row goes to metrics.jsonl and TensorBoard. What a checkpoint in the
middle needs, an epoch's sums and its number of steps, is in the state.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import time
from pathlib import Path

import torch

from prep.program import UserError
from train import checkpoint as checkpoints
from train import optimiser, schedule
from train.checkpoint import Checkpoint
from train.clock import duration
from train.feed import Feeding, compiled_now
from train.metrics import STEP_INTERVAL, Metrics
from train.processes import Processes
from train.saving import Saving
from train.screen import Screen
from train.signals import Signals
from train.state import Data, RunSettings, State
from train.step import Updater
from train.sums import NAMES, Means

LONG = 600.0  # seconds of a run that are worth a line beforehand


class Wish(enum.IntEnum):
    """What a process wants at the end of a step; the largest of all is done."""

    NOTHING = 0
    CHECKPOINT = 1
    STOP = 2  # after a checkpoint


@dataclasses.dataclass(frozen=True)
class Run:
    """What an epoch works with."""

    settings: RunSettings
    data: Data
    processes: Processes
    state: State
    updater: Updater
    batches: Feeding
    recorder: Metrics | None  # of process 0
    screen: Screen
    signals: Signals
    saving: Saving

    def row(self, kind: str, values: dict[str, float]) -> None:
        if self.recorder is not None:
            self.recorder.row(kind, self.state.step, values)

    def agreed_wish(self) -> Wish:
        """All processes call it and have the same answer."""
        wish = Wish.NOTHING
        if self.processes.first and self.saving.due(self.state.step):
            wish = Wish.CHECKPOINT
        if self.signals.received:
            wish = Wish.STOP
        return Wish(self.processes.largest(wish))

    def save(self, best: bool = False) -> Path | None:
        """Write a checkpoint; all processes call it, process 0 writes and has the path."""
        checkpoint = _checkpoint(self)
        _check_weights(checkpoint, self)
        path = self.saving.save(checkpoint, best) if self.processes.first else None
        # torchrun ends all when one has ended: none may before the checkpoint is written.
        self.processes.largest(0)
        return path


def train_epoch(run: Run) -> dict[str, float] | None:
    """The rest of the epoch; its figures, or None when a signal has ended it with a checkpoint."""
    state, recipe, sums, clock = run.state, run.settings.recipe, run.state.sums, run.state.clock
    steps = len(run.batches)
    state.network.train()
    if not state.pipeline_compiled:
        run.screen.line("compiling the pipeline, unless an earlier run has left it on disk ...")
    began = time.monotonic()
    clock.start()
    with run.screen.counting(f"epoch {state.epoch + 1}/{recipe.epochs}", steps):
        for batch in run.batches.epoch(recipe.seed, state.epoch, state.epoch_step):
            if state.pipeline_compiled:
                clock.got()
            else:
                how = "compiled" if compiled_now() else "loaded"
                run.screen.line(
                    f"pipeline {how}, first batch read: {time.monotonic() - began:.1f} s"
                )
                state.pipeline_compiled = True
                clock.start()  # rates are of the training alone
            rate = _set_rate(run)
            total = run.batches.samples_of(state.epoch_step)
            sums.add(run.updater.step(batch, state.step, total), total)
            state.step += 1
            state.epoch_step += 1
            clock.images += total
            last = state.epoch_step == steps
            if state.epoch_step % STEP_INTERVAL == 0 or last:
                means = sums.take()
                _check_finite(means, run)
                norm = {"gradient_norm": float(run.updater.gradient_norm())}
                window = clock.window()
                run.row("step", _named(means) | window | norm | {"learning_rate": rate})
                _tell_time(run, window["images_per_s"])
            run.screen.step(state.epoch_step, _running_figures(run, rate))
            wish = run.agreed_wish()
            if wish == Wish.STOP or (wish == Wish.CHECKPOINT and not last):
                run.save()
            if wish == Wish.STOP:
                return None
            clock.ask()
    clock.stop()
    return _named(sums.means()) | clock.figures() | {"learning_rate": _set_rate(run)}


def _tell_time(run: Run, images_per_s: float) -> None:
    """Once a start, where it is long: how long all epochs that are left would take."""
    state, recipe = run.state, run.settings.recipe
    if state.time_told:
        return
    state.time_told = True
    images = (recipe.epochs - state.epoch) * len(run.data.train) - state.clock.images
    if (seconds := images / images_per_s) > LONG:
        run.screen.line(
            f"at {images_per_s:,.0f} images/s training to epoch {recipe.epochs} takes "
            f"{duration(seconds)}, without validation"
        )


def _set_rate(run: Run) -> float:
    """The rate of the next step; after the last one, of the last."""
    recipe, state, steps = run.settings.recipe, run.state, len(run.batches)
    epoch = state.epoch + min(state.epoch_step, steps - 1) / steps
    rate = schedule.learning_rate(recipe, epoch, state.history)
    optimiser.set_rates(run.updater.sgd, recipe, epoch, rate)
    return rate


def _check_finite(means: Means, run: Run) -> None:
    if not math.isfinite(means[0]):
        raise UserError(f"the loss is {means[0]} by step {run.state.step}, {_way_out(run)}")


def _way_out(run: Run) -> str:
    """What follows the name of a figure that is not finite."""
    # Of weights: a layer may be frozen, and biases have rates of their own.
    rate = max(group["lr"] for group in run.updater.sgd.param_groups if not group["biases"])
    last = run.settings.out / checkpoints.FILE_NAME
    good = str(last) if last.exists() else run.state.origin
    weights = f", with the last good weights by --init {good}" if good else ""
    return (
        f"learning rate {rate:g}: begin again in another --out with a lower --set "
        f"learning_rate={weights}, or look at the data with `prep inspect`"
    )


def _check_weights(checkpoint: Checkpoint, run: Run) -> None:
    """The loss of the last update is never seen, so what is to be saved is looked at itself."""
    # Batch norm's running figures too; and fp16's scaler leaves out an update, not its loss.
    sums = {"the loss": torch.tensor(checkpoint.sums)}
    for name, values in (checkpoint.network | checkpoint.average | sums).items():
        if not values.isfinite().all():
            raise UserError(f"{name} is not finite after step {checkpoint.step}, {_way_out(run)}")


def _checkpoint(run: Run) -> Checkpoint:
    state, val = run.state, run.data.val
    average = run.updater.average
    return Checkpoint(
        recipe=run.settings.recipe,
        data=run.data.trained_on,
        network=state.network.state_dict(),
        average={} if average is None else average.state_dict(),
        optimiser=run.updater.sgd.state_dict(),
        scaler=run.updater.scaler.state_dict(),
        epoch=state.epoch,
        epoch_step=state.epoch_step,
        step=state.step,
        sums=state.sums.state(),
        clock=state.clock.state(),
        history=state.history,
        threads=torch.get_num_threads(),
        origin=state.origin,
        val_pixels_id=val.card.pixels_id if val else "",
        labels_sha256=run.data.train.labels_sha256,
    )


def _named(means: Means) -> dict[str, float]:
    return dict(zip(NAMES, means.tolist(), strict=True))


def _running_figures(run: Run, rate: float) -> str:
    means, history = run.state.sums.means(), run.state.history
    if not means.any():
        return ""
    figures = run.state.clock.figures()
    line = f"loss {means[0]:.3f}, error top-1 {means[1]:.1%} top-5 {means[2]:.1%}"
    if history and "val_top1_error" in history[-1]:
        line += f", of validation {history[-1]['val_top1_error']:.1%}"
    return line + (
        f", rate {rate:.3g}, {figures['images_per_s']:,.0f} images/s, "
        f"{figures['data_wait']:.1%} waiting for data"
    )
