"""Recipes: what is read, what is refused and how the refusal helps, `--set` settings."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from prep.program import UserError
from train.recipe import (
    LayerRate,
    Recipe,
    load_recipe,
    recipe_from_values,
    recipe_names,
    recipe_text,
)


def values() -> dict[str, object]:
    """A whole, valid recipe as TOML gives it."""
    found: dict[str, object] = dataclasses.asdict(load_recipe("paper"))
    return found | {"drop_epochs": [25, 51, 79]}


def error_of(changed: dict[str, object]) -> str:
    with pytest.raises(UserError) as caught:
        recipe_from_values(changed, "mine.toml")
    message = str(caught.value)
    assert "\n" not in message
    assert "mine.toml" in message or "recipe paper" in message
    return message


def test_paper_recipe_has_the_papers_values() -> None:
    paper = load_recipe("paper")
    assert (paper.batch, paper.epochs, paper.learning_rate) == (128, 90, 0.01)
    assert (paper.momentum, paper.weight_decay, paper.dropout) == (0.9, 0.0005, 0.5)
    assert (paper.schedule, paper.drops, paper.drop_factor) == ("plateau", 3, 0.1)
    assert (paper.network, paper.width, paper.init) == ("paper", 1.0, "paper")
    assert (paper.lrn_alpha, paper.dropout_on) == (1e-4, "outputs")
    assert (paper.image_side, paper.crop, paper.pixel_divisor) == (256, 224, 1.0)
    assert (paper.bias_rate_factor, paper.bias_rate_falls, paper.bias_decay) == (1.0, True, True)
    assert (paper.layer_rates, paper.velocity, paper.nesterov) == ((), "kept", False)
    assert (paper.watch, paper.stop_patience) == ("val_top1_error", 0)
    assert (paper.mirror, paper.share, paper.mean) == (True, 1, "matched")
    assert (paper.noise, paper.colour_noise) == ("standard-deviations", 0.1)
    assert (paper.noise_divisor, paper.noise_until) == (1.0, 0)


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_recipe("paper").batch = 1  # type: ignore[misc]


def test_unknown_key_names_the_close_match() -> None:
    message = error_of(values() | {"learning_rat": 0.1})
    assert "unknown key 'learning_rat'" in message
    assert "did you mean learning_rate?" in message


def test_unknown_key_without_a_close_match_lists_the_keys() -> None:
    message = error_of(values() | {"zzzz": 1})
    assert "'zzzz'" in message
    assert all(field.name in message for field in dataclasses.fields(Recipe))


def test_missing_keys_are_all_named() -> None:
    changed = values()
    del changed["batch"], changed["seed"]
    assert "missing batch, seed" in error_of(changed)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch", 12.5),
        ("batch", True),
        ("batch", "many"),
        ("epochs", [1]),
        ("learning_rate", "fast"),
        ("learning_rate", False),
        ("mirror", 1),
        ("mirror", "true"),
        ("share", 1.5),
        ("noise_until", True),
        ("name", 5),
        ("drop_epochs", 25),
        ("drop_epochs", [25, 51.0]),
        ("drop_epochs", [True]),
        ("drop_epochs", "25"),
        ("layer_rates", "conv1"),
        ("layer_rates", [72]),
        ("layer_rates", [{"layer": "conv1", "rate": 0.0}]),
        ("layer_rates", [{"layer": "conv1", "from_epoch": 1, "rate": 0.0, "until": 2}]),
        ("width", {}),
    ],
)
def test_wrong_type_names_key_and_value(key: str, value: object) -> None:
    message = error_of(values() | {key: value})
    assert f"{key} is {value!r}" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", 0.0),
        ("lrn_alpha", -1e-4),
        ("dropout", -0.1),
        ("dropout", 1.0),
        ("pool_dropout", 1.0),
        ("crop", 226),
        ("image_side", 223),
        ("val_views", 2),
        ("pixel_divisor", 0.0),
        ("colour_noise", -0.1),
        ("share", 0),
        ("noise_divisor", 0.0),
        ("noise_divisor", -1.1),
        ("noise_until", -1),
        ("batch", 0),
        ("epochs", 0),
        ("learning_rate", 0.0),
        ("learning_rate", -0.01),
        ("bias_rate_factor", 0.0),
        ("momentum", 1.0),
        ("momentum", -0.9),
        ("weight_decay", -0.0005),
        ("drop_factor", 0.0),
        ("drop_factor", 1.0),
        ("drops", -1),
        ("patience", 0),
        ("threshold", -0.1),
        ("threshold", 1.0),
        ("min_rate", -1e-6),
        ("warmup_epochs", -1.0),
        ("stop_patience", -1),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_out_of_range_names_key_value_and_limit(key: str, value: object) -> None:
    message = error_of(values() | {key: value})
    assert f"{key} must be " in message
    assert message.endswith(f"it is {value}")


@pytest.mark.parametrize(
    "key", [field.name for field in dataclasses.fields(Recipe) if field.type == "float"]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_floats_are_finite(key: str, value: float) -> None:
    assert f"{key} is {value}" in error_of(values() | {key: value})


@pytest.mark.parametrize(
    ("key", "choices"),
    [
        (
            "network",
            "paper, paper-batch-norm, single-tower, authors-2012, batch-norm, torchvision",
        ),
        ("init", "paper, paper-fc-biases-0, authors-2012, he, xavier-normal, torch"),
        ("dropout_on", "outputs, inputs"),
        ("mean", "matched, centre, channels, half"),
        ("test_crop", "centre, random"),
        ("velocity", "kept, scaled"),
        ("watch", "loss, val_loss, val_top1_error, val_top5_error"),
        ("noise", "standard-deviations, eigenvalues, per-image, none"),
        ("schedule", "plateau, reduce-on-plateau, steps, one-cycle, cosine"),
    ],
)
@pytest.mark.parametrize("value", ["Paper", "", 1, ["lrn"]])
def test_a_choice_lists_what_there_is(key: str, choices: str, value: object) -> None:
    message = error_of(values() | {key: value})
    assert f"{key} is {value!r}, it must be one of {choices}" in message


def test_a_row_of_layer_rates_names_what_is_wrong_with_it() -> None:
    row: dict[str, object] = {"layer": "conv1", "from_epoch": 72, "rate": 0}
    (read,) = recipe_from_values(values() | {"layer_rates": [row]}, "mine.toml").layer_rates
    assert read == LayerRate("conv1", 72, 0.0)
    assert "layer is 'conv9'" in error_of(values() | {"layer_rates": [row | {"layer": "conv9"}]})
    assert "from_epoch is 1.5" in error_of(values() | {"layer_rates": [row | {"from_epoch": 1.5}]})
    assert "rates of at least 0" in error_of(values() | {"layer_rates": [row | {"rate": -0.1}]})


def test_what_a_network_cannot_have_is_refused() -> None:
    inputs, outputs = {"dropout_on": "inputs"}, {"dropout_on": "outputs"}
    assert "must be outputs for" in error_of(values() | {"network": "authors-2012"} | inputs)
    assert "must be inputs for" in error_of(values() | {"network": "torchvision"} | outputs)
    assert "momentum must be above 0" in error_of(values() | {"nesterov": True, "momentum": 0})
    at_random = {"val_views": 5, "test_crop": "random"}
    assert "val_views must be 1 where test_crop is random, it is 5" in error_of(
        values() | at_random
    )


def test_limits_hold_for_changed_copies_too() -> None:
    with pytest.raises(UserError, match="batch must be at least 1, it is 0"):
        dataclasses.replace(load_recipe("demo"), batch=0)


def test_whole_numbers_become_floats_where_floats_are_wanted() -> None:
    rate = recipe_from_values(values() | {"learning_rate": 1}, "mine.toml").learning_rate
    assert type(rate) is float
    assert rate == 1.0


def test_set_changes_only_its_keys() -> None:
    changed = load_recipe("demo", ["epochs=5", "learning_rate = 0.5"])
    assert changed == dataclasses.replace(load_recipe("demo"), epochs=5, learning_rate=0.5)


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("epochs=5", "epochs", 5),
        ("learning_rate=2e-3", "learning_rate", 2e-3),
        ("learning_rate=1", "learning_rate", 1.0),
        ("mirror=false", "mirror", False),
        ("drop_epochs=[3, 4]", "drop_epochs", (3, 4)),
        ("drop_epochs=[]", "drop_epochs", ()),
        ("schedule=steps", "schedule", "steps"),
        ("schedule=one-cycle", "schedule", "one-cycle"),
        ('schedule="plateau"', "schedule", "plateau"),
        ("layer_rates=[]", "layer_rates", ()),
        (
            'layer_rates=[{layer="fc8", from_epoch=3, rate=0}]',
            "layer_rates",
            (LayerRate("fc8", 3, 0.0),),
        ),
        ("name=night run", "name", "night run"),
        ("about=a=b", "about", "a=b"),
    ],
)
def test_set_understands(setting: str, key: str, value: object) -> None:
    assert getattr(load_recipe("demo", [setting]), key) == value


def test_the_last_of_two_settings_counts() -> None:
    assert load_recipe("demo", ["epochs=5", "epochs=7"]).epochs == 7


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "--set epochs: write key=value"),
        ("epoch=5", "did you mean epochs?"),
        ("epochs=five", "epochs is 'five', it must be of type int"),
        ("epochs=", "epochs is '', it must be of type int"),
        ("epochs=0", "epochs must be at least 1, it is 0"),
        ("=5", "unknown key ''"),
    ],
)
def test_set_refuses(setting: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("demo", [setting])
    assert message in str(caught.value)


def test_a_file_is_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(recipe_text("paper").replace("epochs = 90", "epochs = 3"), encoding="utf-8")
    assert load_recipe(str(path)) == load_recipe("paper", ["epochs=3"])


def test_a_key_given_twice_or_broken_syntax_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for text in (recipe_text("demo") + "seed = 1\n", "just words\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as caught:
            load_recipe(str(path))
        assert f"recipe {path} is not TOML" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    binary, folder = tmp_path / "binary.toml", tmp_path / "folder.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    folder.mkdir()
    with pytest.raises(UserError, match=r"absent\.toml does not exist; `train recipes NAME`"):
        load_recipe(str(tmp_path / "absent.toml"))
    for path in (binary, folder):
        with pytest.raises(UserError) as caught:
            load_recipe(str(path))
        assert f"recipe {path} cannot be read" in str(caught.value)


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("papers")
    message = str(caught.value)
    assert "'papers'" in message
    assert recipe_names()
    assert all(name in message for name in recipe_names())
