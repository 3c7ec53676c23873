"""torchvision's weights give the logits that torchvision gives, from grey levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from prep.manifest import load as load_manifest
from prep.program import UserError
from train import checkpoint as checkpoints
from train import networks, pretrained
from train.evaluate import cut_views, views_of

TRANSFORMS = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.transforms()
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def small() -> Weights:
    """Weights as torchvision's, those of the large layers one number each, to keep files small."""
    with torch.device("meta"):
        shapes = torchvision.models.alexnet(weights=None).state_dict()
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.zeros(1).expand(values.shape)
        if name.startswith("classifier")
        else torch.randn(values.shape, generator=generator)
        for name, values in shapes.items()
    }


def saved(path: Path, weights: Weights, new_format: bool = True) -> Path:
    torch.save(weights, path, _use_new_zipfile_serialization=new_format)
    return path


def test_logits_are_torchvisions() -> None:
    """Of random weights, on its own input of the same pixels: to rounding, the border included."""
    torch.manual_seed(3)
    theirs = torchvision.models.alexnet(weights=None).eval()
    ours = networks.without_weights(pretrained.recipe(), 1000).eval()
    ours.load_state_dict(pretrained.ours(theirs.state_dict()))
    generator = np.random.default_rng(2)
    images_BSSC = torch.from_numpy(generator.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8))
    images_BSSC[1] //= 3  # a dark one
    views = views_of(
        pretrained.recipe(), checkpoints.pretrained_data(), torch.device("cpu"), count=1
    )
    (view,) = cut_views(images_BSSC, views)
    with torch.inference_mode():
        wanted = theirs(TRANSFORMS(images_BSSC.permute(0, 3, 1, 2)))
        found = ours(view)
    scale = float(wanted.std())
    assert scale > 0.001  # else it proves nothing
    assert float((wanted[0] - wanted[1]).abs().max()) > 0.1 * scale
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * scale)


def test_the_figures_are_those_of_torchvisions_transforms() -> None:
    assert tuple(TRANSFORMS.mean) == pretrained.MEAN
    assert tuple(TRANSFORMS.std) == pretrained.DEVIATION
    assert TRANSFORMS.resize_size == [pretrained.SIDE]
    assert TRANSFORMS.crop_size == [pretrained.recipe().crop]


def test_classes_are_imagenets_by_rank_of_wnid() -> None:
    wnids, names = pretrained.imagenet_classes()
    assert wnids == sorted(wnids)
    manifest = load_manifest("imagenet-1k")
    assert [(known.folder, known.name) for known in manifest.classes] == [
        *zip(wnids, names, strict=True)
    ]
    theirs = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    agreeing = sum(
        name.split(",")[0].lower() == other.lower()
        for name, other in zip(names, theirs, strict=True)
    )
    assert agreeing > 900  # some are called otherwise, such as the two cranes


@pytest.mark.parametrize("new_format", [True, False])
def test_a_file_of_weights_is_a_checkpoint(
    small: Weights, tmp_path: Path, new_format: bool
) -> None:
    path = saved(tmp_path / "alexnet.pth", small, new_format)
    loaded = checkpoints.load(path)
    assert (loaded.recipe.network, loaded.recipe.crop, loaded.step) == ("torchvision", 224, 0)
    assert len(loaded.data.wnids) == len(loaded.data.names) == 1000
    assert loaded.data.settings.backend == "pillow"
    assert loaded.data.mean_image[5, 9].tolist() == pytest.approx([123.675, 116.28, 103.53])
    ratio = small["features.0.weight"] / loaded.network["conv1.weight"]
    for colour, deviation in enumerate(pretrained.DEVIATION):
        torch.testing.assert_close(
            ratio[:, colour], torch.full_like(ratio[:, colour], deviation * 255)
        )
    assert torch.equal(loaded.network["conv2.weight"], small["features.3.weight"])


def test_other_weights_are_refused(small: Weights, tmp_path: Path) -> None:
    """Of another network with layers of these names, lacking some, and of other classes."""
    without_last = {name: values for name, values in small.items() if "classifier.6" not in name}
    ten = small | {f"classifier.6.{kind}": torch.zeros(10) for kind in ("weight", "bias")}
    for weights, reason in (
        (small | {"features.11.weight": torch.zeros(1)}, "another network"),
        (small | {"epoch": torch.zeros(1)}, "another network"),
        (without_last, "another network"),
        (ten, "10 classes"),
    ):
        path = saved(tmp_path / "weights.pth", weights)
        with pytest.raises(UserError, match=reason) as caught:
            checkpoints.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
