"""What a trained network looks at: its accuracy on damaged copies of validation pictures.

    python benchmarks/shortcuts.py RUN VAL.beton [--out FILE.json]

Copies in grey, with red and blue exchanged, and cut into 4x4 patches that are shuffled. A network
that tells classes apart by shape alone loses nothing in grey; by colour alone, nothing when
patches are shuffled. `prep sample` draws classes of which neither may be true.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from train import checkpoint, dataset, evaluate
from train.loader import Batch, Batches

PATCHES = 4  # a side


def as_it_is(images_BSSC: torch.Tensor) -> torch.Tensor:
    return images_BSSC


def grey(images_BSSC: torch.Tensor) -> torch.Tensor:
    """Luma (ITU-R BT.601) in all three channels."""
    luma = images_BSSC.float() @ torch.tensor([0.299, 0.587, 0.114])
    return luma.round().to(torch.uint8)[..., None].expand(-1, -1, -1, 3)


def channels_swapped(images_BSSC: torch.Tensor) -> torch.Tensor:
    """Red and blue exchanged."""
    return images_BSSC.flip(3)


def patches_shuffled(images_BSSC: torch.Tensor) -> torch.Tensor:
    """4x4 patches in an order drawn for each picture, from seed 0 for each batch."""
    generator = np.random.default_rng(0)
    count, side = images_BSSC.shape[:2]
    size = side // PATCHES
    # [B,S,S,C] to [B,row of patches,y,column of patches,x,C] to [B,patch,y,x,C]
    grid = images_BSSC.reshape(count, PATCHES, size, PATCHES, size, 3).permute(0, 1, 3, 2, 4, 5)
    patches = grid.reshape(count, PATCHES**2, size, size, 3)
    orders = torch.from_numpy(np.stack([generator.permutation(PATCHES**2) for _ in range(count)]))
    shuffled = torch.stack([p[order] for p, order in zip(patches, orders, strict=True)])
    back = shuffled.reshape(count, PATCHES, PATCHES, size, size, 3).permute(0, 1, 3, 2, 4, 5)
    return back.reshape(count, side, side, 3)


COPIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as they are": as_it_is,
    "grey": grey,
    "red and blue exchanged": channels_swapped,
    "patches shuffled": patches_shuffled,
}


def accuracies(run: Path, beton: Path) -> dict[str, float]:
    """Top-1 accuracy, centre view, of the run's network on each kind of copy."""
    loaded = checkpoint.load(run)
    network = checkpoint.trained_network(loaded, run)
    views = evaluate.views_of(loaded.recipe, loaded.data, torch.device("cpu"), count=1)
    batches = Batches(dataset.open_dataset(beton), batch=64, workers=1)

    def copies(change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[Batch]:
        for batch in batches.sequential():
            yield batch._replace(images=change(batch.images))

    return {
        name: 1 - evaluate.evaluate(network, copies(change), views)[1].top1_error
        for name, change in COPIES.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("beton", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = accuracies(arguments.run, arguments.beton)
    for name, accuracy in found.items():
        print(f"{name}: {accuracy:.1%}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"top-1 accuracy": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
