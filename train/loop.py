"""The training run, in time order: data, network, optimiser, resume, epochs."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from prep.locks import only_run
from prep.program import ToldExit, UserError, counted, examples
from train import checkpoint as checkpoints
from train import evaluate, provenance, schedule, summary
from train.epoch import Run, Wish, train_epoch
from train.evaluate import Score
from train.feed import Feeding, feed_line
from train.loader import Batch, Batches, evaluation_batches
from train.metrics import Metrics
from train.processes import Processes, begun_again, joined
from train.recipe import Recipe
from train.saving import Saving
from train.screen import Screen
from train.signals import Signals
from train.start import chosen_feed, feeding, open_data, start
from train.state import Data, RunSettings
from train.step import updater

LOG_NAME = "log.txt"
LEASE = 120.0  # seconds; an NFS server keeps a dead host's lock for 90


def run(settings: RunSettings) -> Path:
    """Train, or carry on; returns the checkpoint's path.

    Raises SystemExit with a code of train.signals when a signal has ended it with a checkpoint.
    """
    torch.set_num_threads(settings.workers)  # importing FFCV has set it to 1
    data = open_data(settings)
    line = feed_line(chosen_feed(settings, data), data.trained_on.side, settings.recipe.image_side)
    with joined(settings.device) as processes:
        batches = feeding(settings, data, processes)
        with _places(settings, processes) as screen:
            screen.line(line)
            if data.val is not None and data.val.card.pixels_id == data.train.card.pixels_id:
                screen.line(
                    f"{data.val.path} holds the very pictures that are trained on: its errors are "
                    "not those of validation"
                )
            batches.prepare(screen.line)
            return _run(settings, data, processes, batches, screen)


@contextlib.contextmanager
def _places(settings: RunSettings, processes: Processes) -> Iterator[Screen]:
    """The run's folder, for process 0 alone, and a screen."""
    if not processes.first:
        with Screen(silent=True) as screen:
            yield screen
        return
    _make_folder(settings.out)
    patience = LEASE if begun_again() else 0.0
    with (
        only_run(settings.out / ".lock", settings.out, patience=patience),
        Screen(settings.out / LOG_NAME) as screen,
    ):
        yield screen


def _make_folder(out: Path) -> None:
    """Raises UserError when `out` cannot be made, or holds other things than a run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {out} cannot be made: {error.strerror}; give another folder"
        ) from error
    found = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    if found and not found & {LOG_NAME, checkpoints.FILE_NAME, provenance.FILE_NAME}:
        raise UserError(
            f"--out {out} holds other things than a run ({examples(sorted(found))}); give a folder "
            "that is new or empty"
        )


def _run(
    settings: RunSettings, data: Data, processes: Processes, batches: Feeding, screen: Screen
) -> Path:
    recipe, out = settings.recipe, settings.out
    path = out / checkpoints.FILE_NAME
    state = start(settings, data, processes, screen)
    if why := schedule.ended(recipe, state.epoch, state.history):
        if not path.exists():
            raise UserError(f"{settings.resume} has finished: {why}")
        screen.line(f"{out} has finished: {why}")
        return path
    saving = Saving(out, settings.checkpoint_steps, settings.checkpoint_minutes, settings.keep)
    with contextlib.ExitStack() as stack:
        recorder = None
        if processes.first:
            if settings.resume == "never":
                saving.start_over()
            provenance.record(settings, data, processes, state, len(batches))
            recorder = stack.enter_context(Metrics(out, state.step, state.epoch))
            if settings.summary:
                for line in summary.lines(state.network, recipe.crop):
                    screen.line(line)
                recorder.graph(state.network, summary.example(state.network, recipe.crop))
        signals = stack.enter_context(Signals())
        stack.enter_context(_out_of_memory_named(settings))
        run = Run(
            settings=settings,
            data=data,
            processes=processes,
            state=state,
            updater=updater(settings, state, processes, screen, len(data.train)),
            batches=batches,
            recorder=recorder,
            screen=screen,
            signals=signals,
            saving=saving,
        )
        val_batches = None
        if data.val is not None:
            val_batches = evaluation_batches(
                data.val,
                recipe.batch,
                settings.workers,
                settings.device,
                processes.rank,
                processes.world,
            )
        while not schedule.ended(recipe, state.epoch, state.history):
            if not _epoch(run, val_batches):
                screen.line(
                    f"{signals.name}: checkpoint {path} after step {state.step}; the same command "
                    "carries on"
                )
                raise ToldExit(signals.exit_code)
        screen.line(_ended_line(recipe, state.history, out))
    return path


def _epoch(run: Run, val_batches: Batches | None) -> bool:
    """Train for an epoch, validate, write down; False when a signal has ended it."""
    state, recipe = run.state, run.settings.recipe
    figures = train_epoch(run)
    if figures is None:
        return False
    if val_batches is not None:
        score = _validate(run, val_batches)
        if score is None:
            run.save()
            return False
        figures |= _val_figures(score)
    watched: dict[str, float] = {
        name: figures[name] for name in schedule.WATCHED if name in figures
    }
    best = schedule.is_best(recipe, state.history, watched)
    state.end_epoch(watched)
    run.row("epoch", {"epoch": state.epoch} | figures)
    run.save(best)
    run.screen.line(_epoch_line(state.epoch, recipe, figures))
    return True


def _validate(run: Run, batches: Batches) -> Score | None:
    """By the recipe's number of views; None when a signal came in between."""
    recipe, settings = run.settings.recipe, run.settings
    stopped = False

    def until_signal(followed: Iterable[Batch]) -> Iterator[Batch]:
        nonlocal stopped
        for batch in followed:
            stopped = run.agreed_wish() == Wish.STOP
            if stopped:
                return
            yield batch

    followed = run.screen.follow("validation", batches.sequential(), len(batches))
    judged = run.updater.judged()
    run.processes.take_from_first(judged.buffers())  # batch norm's, of each process's own images
    scores = evaluate.evaluate(
        judged,
        until_signal(followed),
        evaluate.views_of(recipe, run.data.trained_on, settings.device, recipe.val_views),
        run.processes,
    )
    return None if stopped else scores[recipe.val_views]


@contextlib.contextmanager
def _out_of_memory_named(settings: RunSettings) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{settings.device} has too little memory for batches of {settings.recipe.batch}; give "
            "a larger --accumulate, or a smaller --set batch="
        ) from error


def _val_figures(score: Score) -> dict[str, float]:
    return {
        "val_loss": score.loss,
        "val_top1_error": score.top1_error,
        "val_top5_error": score.top5_error,
    }


def _ended_line(recipe: Recipe, history: schedule.History, out: Path) -> str:
    watch = recipe.watch
    known = [(row[watch], number) for number, row in enumerate(history, 1) if watch in row]
    best = f", the best by {watch} is epoch {min(known)[1]}" if known else ""
    report = f"`train report {shlex.quote(str(out))}`"
    return f"{counted(len(history), 'epoch')} done{best}; {report} shows the run"


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
