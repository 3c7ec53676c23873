"""What the manifests say, and how they are read."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest

from prep.manifest import Manifest, load, names
from prep.program import UserError

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["caltech-256", "cifar-10", "imagenet-1k", "tiny-imagenet-200"]
SMALL = """\
name = "small"
title = "Two classes"
homepage = "https://example.org"
terms = "none"
[splits]
train = { images = 5 }
val = { images = 4, per_class = 2 }
test = { images = 3, labelled = false }
[[archives]]
file = "small.tar"
holds = ["train", "val"]
md5 = "d41d8cd98f00b204e9800998ecf8427e"
bytes = 10
[[oddities]]
kind = "grey"
about = "one channel"
split = "train"
count = 2
[classes]
a = { name = "ant", train = 3 }
b = { name = "bee", train = 2 }
"""


def written(folder: Path, text: str) -> str:
    path = folder / "small.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def small(tmp_path: Path) -> Manifest:
    return load(written(tmp_path, SMALL))


def folders(manifest: Manifest) -> list[str]:
    return [known.folder for known in manifest.classes]


def counts(manifest: Manifest, split: str) -> list[int]:
    return [known.images[split] for known in manifest.classes]


# --------------------------------------------------------------------------- the shipped ones


def test_the_shipped_manifests() -> None:
    assert names() == NAMES
    assert [load(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_archives_have_an_md5_and_hold_what_there_is(name: str) -> None:
    manifest = load(name)
    for archive in manifest.archives:
        assert len(bytes.fromhex(archive.md5)) == hashlib.md5().digest_size
        assert set(archive.holds) <= {*manifest.splits, "devkit"}
    held = {split for archive in manifest.archives for split in archive.holds}
    assert set(manifest.splits) <= held


@pytest.mark.parametrize("name", NAMES)
def test_every_class_has_a_name_of_its_own(name: str) -> None:
    shown = [known.name for known in load(name).classes]
    assert all(shown)
    assert len(set(shown)) == len(shown)


def test_imagenet() -> None:
    manifest = load("imagenet-1k")
    train = counts(manifest, "train")
    assert (len(train), sum(train), min(train), max(train)) == (1000, 1_281_167, 732, 1300)
    assert counts(manifest, "val") == [50] * 1000
    first, last = manifest.classes[0], manifest.classes[-1]
    assert (first.folder, first.name) == ("n01440764", "tench")
    assert (last.folder, last.name) == ("n15075141", "toilet tissue")
    assert not manifest.splits["test"].labelled


def test_imagenet_s_odd_files_are_of_its_classes() -> None:
    manifest = load("imagenet-1k")
    odd = {(oddity.kind, oddity.split): oddity.files for oddity in manifest.oddities}
    assert len(odd["cmyk", "train"]) == 22
    assert odd["png", "train"] == ("n02105855_2933.JPEG",)
    known = set(folders(manifest))
    assert {
        name.split("_")[0] for (_, s), names in odd.items() if s == "train" for name in names
    } <= known


def test_tiny_imagenet() -> None:
    manifest = load("tiny-imagenet-200")
    assert counts(manifest, "train") == [500] * 200
    assert counts(manifest, "val") == [50] * 200
    grey = {oddity.split: oddity.count for oddity in manifest.oddities}
    assert grey == {"train": 1821, "val": 168, "test": 189}


def test_cifar_10_is_in_the_order_of_its_labels() -> None:
    manifest = load("cifar-10")
    assert folders(manifest) == (
        "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
    )
    assert (counts(manifest, "train"), counts(manifest, "test")) == ([5000] * 10, [1000] * 10)


def test_caltech_256_s_folders_are_numbered_and_its_clutter_is_optional() -> None:
    manifest = load("caltech-256")
    assert [int(folder[:3]) for folder in folders(manifest)] == list(range(1, 258))
    assert [known.folder for known in manifest.classes if known.optional] == ["257.clutter"]


def test_they_are_found_as_package_data() -> None:
    files = {entry.name for entry in resources.files("data_manifests").iterdir()}
    assert {f"{name}.toml" for name in NAMES} <= files


def test_a_wheel_holds_them(tmp_path: Path) -> None:
    build = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "prep", "train", "data_manifests"):
        (source / name).symlink_to(ROOT / name)
    subprocess.run(
        [sys.executable, "-c", build, tmp_path], cwd=source, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {f"data_manifests/{name}.toml" for name in NAMES} <= packed


# --------------------------------------------------------------------------- reading


def test_a_manifest_from_a_path(small: Manifest) -> None:
    assert folders(small) == ["a", "b"]
    assert counts(small, "train") == [3, 2]
    assert counts(small, "val") == [2, 2]
    assert "test" not in small.classes[0].images
    assert small.archives[0].bytes == 10
    assert (small.oddities[0].files, small.oddities[0].count) == ((), 2)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no manifest is called 'imagenet'; there are caltech-256"):
        load("imagenet")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.toml cannot be read"):
        load(str(tmp_path / "nowhere.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "small"', 'nane = "small"', r"name is missing; add it"),
        ('terms = "none"', 'terms = "none"\nurl = ""', r"unknown key 'url'; keys are"),
        ("train = { images = 5 }", "train = { image = 5 }", r"splits\.train: images is missing"),
        ("per_class", "per_clas", r"splits\.val: unknown key 'per_clas'; did you mean per_class\?"),
        ("images = 5", 'images = "5"', r"splits\.train: images is '5', it must be of type int"),
        ("images = 5", "images = -5", r"images is -5, it must be at least 0"),
        ("images = 5", "images = 6", r"train has 6 images, its classes add up to 5; mend"),
        ("bytes = 10", "size = 10", r"archives 1: unknown key 'size'"),
        ('holds = ["train", "val"]', "holds = [1]", r"holds holds 1, which is no text"),
        ('split = "train"', 'split = "dev"', r"oddity grey is in split 'dev', which is none of"),
        ("count = 2", "", r"oddities 1: count is missing; add it"),
        ("a = { name", "c = { name", r"class b comes after c; sort the classes"),
        ('b = { name = "bee", train = 2 }', "b = 2", r"classes\.b is 2, it must be a table"),
        ('name = "bee", train', 'name = "bee", dev', r"classes\.b: unknown key 'dev'"),
        ("[splits]", "[splits", r"small\.toml is not TOML: "),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(UserError, match=message):
        load(written(tmp_path, SMALL.replace(old, new, 1)))
