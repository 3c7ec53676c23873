"""The networks, by the names that recipes call them.

| network          | module         | parameters at 1000 classes |
|------------------|----------------|----------------------------|
| paper            | paper.py       | 60,965,224                 |
| paper-batch-norm | paper.py       | 60,965,928                 |
| single-tower     | paper.py       | 62,378,344                 |
| authors-2012     | authors.py     | 60,965,224                 |
| batch-norm       | batch_norm.py  | 62,397,480                 |
| torchvision      | torchvision.py | 61,100,840                 |
"""

from __future__ import annotations

from train.networks.authors import AuthorsNet
from train.networks.batch_norm import BatchNormNet
from train.networks.initial import initialise
from train.networks.layers import AlexNet
from train.networks.paper import TOWERS, PaperNet
from train.networks.torchvision import TorchvisionNet
from train.recipe import Recipe


def build(recipe: Recipe, classes: int) -> AlexNet:
    """The recipe's network with its initial weights, drawn from the recipe's seed."""
    network = without_weights(recipe, classes)
    initialise(network, recipe.init, recipe.seed)
    return network


def without_weights(recipe: Recipe, classes: int) -> AlexNet:
    """The recipe's network, its weights as torch's own layers begin."""
    width, dropout, seed = recipe.width, recipe.dropout, recipe.seed
    match recipe.network:
        case "paper" | "paper-batch-norm" | "single-tower":
            return PaperNet(
                classes,
                width=width,
                dropout=dropout,
                seed=seed,
                lrn_alpha=recipe.lrn_alpha,
                dropout_on=recipe.dropout_on,
                towers=1 if recipe.network == "single-tower" else TOWERS,
                norm="batch" if recipe.network == "paper-batch-norm" else "response",
            )
        case "authors-2012":
            return AuthorsNet(
                classes, width=width, dropout=dropout, seed=seed, lrn_alpha=recipe.lrn_alpha
            )
        case "batch-norm":
            return BatchNormNet(
                classes, width=width, dropout=dropout, pool_dropout=recipe.pool_dropout, seed=seed
            )
        case "torchvision":
            return TorchvisionNet(classes, width=width, dropout=dropout, seed=seed)
