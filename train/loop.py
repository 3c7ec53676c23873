"""The training run, in time order: data, network, optimiser, resume, epochs."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prep.files import only_run
from prep.program import UserError
from train import checkpoint as checkpoints
from train import evaluate, metrics, optimiser, schedule
from train.augment import of_recipe
from train.checkpoint import Checkpoint
from train.evaluate import Score
from train.feed import Feeding, choose_feed, compiled_now, feed_line
from train.loader import Batch, evaluation_batches
from train.metrics import Metrics
from train.networks.layers import AlexNet
from train.recipe import Recipe
from train.screen import Screen
from train.start import Data, RunSettings, State, open_data, start


def run(settings: RunSettings) -> Path:
    """Train, or carry on; returns the checkpoint's path."""
    recipe, out = settings.recipe, settings.out
    torch.set_num_threads(settings.workers)  # importing FFCV has set it to 1
    data = open_data(settings)
    feed = choose_feed(settings.feed, settings.device, data.trained_on.side)
    batches = Feeding(
        data.train,
        data.statistics,
        of_recipe(recipe),
        recipe.batch,
        settings.workers,
        device=settings.device,
        feed=feed,
        order=recipe.order,
    )
    val_batches = None
    if data.val is not None:
        val_batches = evaluation_batches(data.val, recipe.batch, settings.workers, settings.device)
    mean_SSC = evaluate.mean_image(data.trained_on, settings.device)
    out.mkdir(parents=True, exist_ok=True)
    path = out / checkpoints.FILE_NAME
    with Screen() as screen, only_run(out / ".lock", out):
        state = start(settings, data, screen)
        screen.line(feed_line(feed, data.trained_on.side))
        if schedule.ended(recipe, state.epoch, state.history):
            screen.line(f"{out} has finished: epoch {state.epoch} of at most {recipe.epochs}")
            return path
        if settings.resume == "never":
            path.unlink(missing_ok=True)
        with Metrics(out, state.step) as recorder, _out_of_memory_named(settings):
            while not schedule.ended(recipe, state.epoch, state.history):
                figures = _train_epoch(state, recipe, batches, recorder, screen)
                state.epoch += 1
                if val_batches is not None:
                    followed = screen.follow(
                        "validation", val_batches.sequential(), len(val_batches)
                    )
                    scores = evaluate.evaluate(
                        state.network, followed, mean_SSC, 1, recipe.mean, recipe.crop
                    )
                    figures |= _val_figures(scores[1])
                state.history.append(
                    {name: figures[name] for name in schedule.WATCHED if name in figures}
                )
                recorder.row("epoch", state.step, {"epoch": state.epoch} | figures)
                checkpoints.save(_checkpoint(state, recipe, data), path)
                screen.line(_epoch_line(state.epoch, recipe, figures))
    return path


@contextlib.contextmanager
def _out_of_memory_named(settings: RunSettings) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{settings.device} has too little memory for batches of {settings.recipe.batch}; give "
            "a smaller --set batch="
        ) from error


# --------------------------------------------------------------------------- one epoch


def _train_epoch(
    state: State, recipe: Recipe, batches: Feeding, recorder: Metrics, screen: Screen
) -> dict[str, float]:
    """One pass over the training data; returns the epoch's figures."""
    state.network.train()
    device = next(state.network.parameters()).device
    if not state.pipeline_compiled:
        screen.line("compiling the pipeline, unless an earlier run has left it on disk ...")
    window = _Sums(device)
    total = np.zeros(3)
    images_done, waited, rate = 0, 0.0, 0.0
    started = asked = time.perf_counter()
    with screen.counting(f"epoch {state.epoch + 1}/{recipe.epochs}", len(batches)):
        for done, batch in enumerate(batches.epoch(recipe.seed, state.epoch), start=1):
            waited += time.perf_counter() - asked
            if not state.pipeline_compiled:
                how = "compiled" if compiled_now() else "loaded"
                screen.line(f"pipeline {how}, first batch read: {waited:.1f} s")
                state.pipeline_compiled = True
                started, waited = time.perf_counter(), 0.0  # rates are of the training alone
            epoch = state.epoch + (done - 1) / len(batches)
            rate = schedule.learning_rate(recipe, epoch, state.history)
            optimiser.set_rates(state.sgd, recipe, epoch, rate)
            window.add(*_step(state, batch, device))
            images_done += len(batch.labels)
            if done % metrics.STEP_INTERVAL == 0 or done == len(batches):
                sums, means = window.take()
                _check_finite(means[0], state.step, rate)
                total += sums
                recorder.row("step", state.step, _named(means) | {"learning_rate": rate})
            seconds = time.perf_counter() - started
            if measured := images_done - window.images:
                figures = total / measured
                screen.step(
                    done, _running_figures(figures, images_done / seconds, waited / seconds)
                )
            asked = time.perf_counter()
    _check_weights(state.network, state.step)
    seconds = time.perf_counter() - started
    return _named(total / images_done) | {
        "learning_rate": rate,
        "images_per_s": images_done / seconds,
        "data_wait": waited / seconds,
        "seconds": seconds,
    }


def _step(state: State, batch: Batch, device: torch.device) -> tuple[torch.Tensor, int]:
    """One update; returns the sums of loss, top-1 and top-5 misses, [3], and the batch's size."""
    images, labels = batch.images.to(device), batch.labels.to(device)
    logits = state.network(images, state.step, batch.samples.to(device))
    loss = nn.functional.cross_entropy(logits, labels)
    state.sgd.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.sgd.step()
    state.step += 1
    misses = evaluate.wrong(logits.detach(), labels)
    return torch.stack([loss.detach() * len(labels), *misses]), len(labels)


class _Sums:
    """Sums of loss, top-1 and top-5 misses since the last row, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, device=device)
        self.images = 0

    def add(self, sums: torch.Tensor, images: int) -> None:
        self._sums += sums
        self.images += images

    def take(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The sums and the means, [3] each; starts anew."""
        sums = np.array(self._sums.tolist())
        means = sums / self.images
        self._sums.zero_()
        self.images = 0
        return sums, means


def _check_finite(loss: float, step: int, rate: float) -> None:
    if not math.isfinite(loss):
        raise UserError(
            f"the loss is {loss} at step {step}, learning rate {rate:g}; give a lower --set "
            "learning_rate, or look at the data with `prep inspect`"
        )


def _check_weights(network: AlexNet, step: int) -> None:
    """The loss of the last update is never seen, so what is to be saved is looked at itself."""
    for name, values in network.state_dict().items():  # batch norm's running figures too
        if not values.isfinite().all():
            raise UserError(
                f"{name} is not finite after step {step}; the checkpoint before is kept: give a "
                "lower --set learning_rate"
            )


# --------------------------------------------------------------------------- after an epoch


def _checkpoint(state: State, recipe: Recipe, data: Data) -> Checkpoint:
    return Checkpoint(
        recipe=recipe,
        data=data.trained_on,
        network=state.network.state_dict(),
        optimiser=state.sgd.state_dict(),
        epoch=state.epoch,
        step=state.step,
        history=state.history,
        threads=torch.get_num_threads(),
        origin=state.origin,
        val_pixels_id=data.val.card.pixels_id if data.val else "",
    )


def _named(means: npt.NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(("loss", "top1_error", "top5_error"), means.tolist(), strict=True))


def _val_figures(score: Score) -> dict[str, float]:
    return {
        "val_loss": score.loss,
        "val_top1_error": score.top1_error,
        "val_top5_error": score.top5_error,
    }


def _running_figures(means: npt.NDArray[np.float64], rate: float, waiting: float) -> str:
    return (
        f"loss {means[0]:.3f}, error top-1 {means[1]:.1%} top-5 {means[2]:.1%}, "
        f"{rate:,.0f} images/s, {waiting:.1%} waiting for data"
    )


def _epoch_line(epoch: int, recipe: Recipe, figures: dict[str, float]) -> str:
    line = (
        f"epoch {epoch}/{recipe.epochs}: loss {figures['loss']:.3f}, top-1 error "
        f"{figures['top1_error']:.1%}"
    )
    if "val_loss" in figures:
        line += (
            f"; validation loss {figures['val_loss']:.3f}, top-1 error "
            f"{figures['val_top1_error']:.1%}, top-5 {figures['val_top5_error']:.1%}"
        )
    return line + (
        f"; learning rate {figures['learning_rate']:.3g}, {figures['images_per_s']:,.0f} images/s, "
        f"{figures['data_wait']:.1%} waiting for data"
    )
