"""What a run begins with: checked data, and the network, new or from a checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from prep.program import UserError
from train import checkpoint as checkpoints
from train import dataset as datasets
from train import networks, optimiser, schedule
from train.augmentation import of_recipe
from train.feed import Feed, Feeding, choose_feed
from train.networks.layers import AlexNet
from train.processes import Processes
from train.recipe import Recipe
from train.resume import check_origin, origin_of, resume, resume_from
from train.screen import Screen
from train.state import Data, RunSettings, State
from train.step import image_dtype
from train.sums import EpochSums


def open_data(settings: RunSettings) -> Data:
    check_origin(settings)
    data = open_train_data(settings.beton)
    schedule.check_validation(settings.recipe, settings.val_beton)
    if settings.val_beton is None:
        return data
    val, known = datasets.open_dataset(settings.val_beton), data.trained_on
    advice = ""
    if settings.val_beton == settings.beton.with_name("val.beton"):
        advice = "; a val.beton beside the training data is taken unless --val-beton names another"
    datasets.check_same_classes(val.card, known.wnids, known.side, str(settings.val_beton), advice)
    return dataclasses.replace(data, val=val)


def feeding(settings: RunSettings, data: Data, processes: Processes) -> Feeding:
    """The run's training batches. Raises UserError as choose_feed, Feeding and Augmentation do."""
    recipe = settings.recipe
    return Feeding(
        data.train,
        data.statistics,
        of_recipe(recipe),
        recipe.batch,
        settings.workers,
        device=settings.device,
        feed=chosen_feed(settings, data),
        order=recipe.order,
        dtype=image_dtype(recipe.precision),
        rank=processes.rank,
        world=processes.world,
    )


def chosen_feed(settings: RunSettings, data: Data) -> Feed:
    side = data.trained_on.side
    return choose_feed(settings.feed, settings.device, side, settings.recipe.image_side)


def open_train_data(beton: Path) -> Data:
    """A training beton and its statistics, without validation data."""
    train = datasets.open_dataset(beton)
    if len(train.card.classes) == 1:
        raise UserError(
            f"{beton} has one class, {train.card.class_names[0]}: there is nothing to tell apart; "
            "give `prep resize` the folder above the class folders"
        )
    statistics = datasets.training_statistics(train)
    return Data(train, None, statistics, checkpoints.trained_on(train.card, statistics))


def start(settings: RunSettings, data: Data, processes: Processes, screen: Screen) -> State:
    """The network and optimiser at step 0, or as the run to resume left them."""
    recipe, device = settings.recipe, settings.device
    check_last_batch(settings, len(data.train), processes)
    check_graphs(settings, processes)
    network = networks.build(recipe, len(data.trained_on.wnids))
    origin = resume_from(settings)
    begun = ""
    if settings.init is not None and origin is None:
        screen.line(_take_over(network, settings.init, recipe, data.trained_on.wnids))
        begun = origin_of(settings)
    network.to(device).to(memory_format=torch.channels_last)
    if processes.world > 1 and device.type == "cuda":  # gloo has none
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    state = State(
        network=network,
        average=AveragedModel(network, use_buffers=True) if recipe.average_decay else None,
        sgd=optimiser.build(network, recipe),
        scaler=torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16"),
        sums=EpochSums(device, processes),
        origin=begun,
    )
    screen.line(_summary(settings, network, data, processes))
    if origin is not None:
        resume(state, origin, settings, data, screen)
    if not processes.same(state.step):
        raise UserError(
            f"the processes would go on at different steps, process {processes.rank} at "
            f"{state.step}; --out {settings.out} must be one folder that all of them see"
        )
    return state


def check_last_batch(settings: RunSettings, samples: int, processes: Processes) -> None:
    """Batch norm of a layer without pixels, as in the network batch-norm, needs two images."""
    batch, pieces = settings.recipe.batch, settings.accumulate
    together = settings.device.type == "cuda" and processes.world > 1  # batch norm is of all
    if "batch-norm" in settings.recipe.network and together and pieces > 1:
        raise UserError(
            f"--accumulate {pieces} does not go with batch norm over {processes.world} processes; "
            "leave it out, or give a smaller --set batch="
        )
    last = samples % batch or batch
    if "batch-norm" in settings.recipe.network and together and last < processes.world:
        raise UserError(
            f"{samples} images in batches of {batch} leave {last} for a step, fewer than the "
            f"{processes.world} processes that batch norm is over; give another --set batch="
        )
    if settings.recipe.network != "batch-norm":
        return
    for images in (batch, last):
        least = images if together else images // processes.world
        least //= min(pieces, max(least, 1))
        if least < 2:
            raise UserError(
                f"{samples} images in batches of {batch} leave {images} for a step, too few for "
                f"batch norm in {processes.world} process(es) and {pieces} piece(s); give another "
                "--set batch=, or a smaller --accumulate"
            )


def check_graphs(settings: RunSettings, processes: Processes) -> None:
    """Raises UserError where no update can be recorded, or none is worth it."""
    if settings.computed != "graphs":
        return
    if settings.device.type != "cuda":
        raise UserError(f"--graphs is for GPUs, not for {settings.device}; give --compile")
    if processes.world > 1:
        raise UserError(f"--graphs is for one process, not for {processes.world}; give --compile")
    if settings.recipe.precision == "fp16":
        raise UserError(
            "--graphs is not for fp16, whose scaler has a state of its own; give "
            "--set precision=bf16, or --compile"
        )


def _take_over(network: AlexNet, origin: Path, recipe: Recipe, wnids: list[str]) -> str:
    """Take the weights of another run, but a new last layer for other classes; says what it did.

    Raises UserError when they were learned from pixels of another scale.
    """
    loaded = checkpoints.load(origin)
    if loaded.recipe.pixel_divisor != recipe.pixel_divisor:
        raise UserError(
            f"the weights of {origin} are for pixels over {loaded.recipe.pixel_divisor:g}, recipe "
            f"{recipe.name} has them over {recipe.pixel_divisor:g}; give "
            f"--set pixel_divisor={loaded.recipe.pixel_divisor:g}"
        )
    weights = checkpoints.judged_weights(loaded)
    if loaded.data.wnids == wnids:
        checkpoints.load_weights(network, weights, origin)
        return f"weights of {origin}"
    new = {name: values for name, values in network.state_dict().items() if name.startswith("fc8.")}
    checkpoints.load_weights(network, weights | new, origin)
    return f"weights of {origin}, with a new last layer for {len(wnids)} other classes"


def _summary(settings: RunSettings, network: AlexNet, data: Data, processes: Processes) -> str:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    others = f" in each of {processes.world} processes" if processes.world > 1 else ""
    return (
        f"recipe {settings.recipe.name}: {parameters:,} parameters, "
        f"{len(data.trained_on.wnids)} classes, {len(data.train):,} training images, on "
        f"{settings.device} with {torch.get_num_threads()} threads{others}"
    )
