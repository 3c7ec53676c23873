"""`prep report`: what a prepared set's page says, of every kind of source, whatever names hold."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ODD_NAMES, jpeg_bytes, small_jpeg, smooth_picture, tar_bytes
from PIL import Image

from prep import build, plan, resize
from prep.images import RejectedImageError
from prep.order import Order
from prep.program import UserError
from prep.report import charts, choice, originals, page, pictures
from prep.report.contents import read_contents
from prep.sources import find_source
from prep.write import write_beton

HOSTILE = "<script>alert(1)</script>"


def images_of(html: str) -> list[Image.Image]:
    """Every picture on a page, decoded."""
    found = re.findall(r'src="data:image/(?:jpeg|png);base64,([^"]*)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def written(folder: Path, tmp_path: Path, source: Path | None = None) -> str:
    out = tmp_path / "page.html"
    page.write(folder, out, source)
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def odd_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, one with a hostile name; odd files among them, and some that are rejected."""
    root = tmp_path_factory.mktemp("odd") / "src"
    for name in (HOSTILE.replace("/", "\N{DIVISION SLASH}"), "plain"):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for number in range(3):
            (folder / f"{number}.JPEG").write_bytes(small_jpeg(number, 40 + 10 * number, 50))
    whole = small_jpeg(9, 90, 60)
    picture = Image.open(io.BytesIO(whole))
    picture.convert("CMYK").save(folder / "cmyk.JPEG")
    picture.convert("L").save(folder / "grey.JPEG")
    picture.save(folder / "called.JPEG", "PNG")
    (folder / "cut.JPEG").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.JPEG").write_bytes(b"")
    (folder / "text<i>.JPEG").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def odd_set(odd_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("odd") / "out"
    resize.resize(find_source(odd_source), out, plan.Options(jobs=1, max_rejects=1.0))
    return out


# --------------------------------------------------------------------------- the page


def test_the_page_has_rejects_kinds_and_pairs(
    odd_set: Path, odd_source: Path, tmp_path: Path
) -> None:
    html = written(odd_set, tmp_path, odd_source)
    assert "1 picture of train: the file is empty" in html
    assert (
        "1 picture of train: the JPEG is truncated (--on-truncated accept takes what is left)"
        in html
    )
    for kind in ("JPEG Gray", "JPEG CMYK", "PNG RGB, called .JPEG"):
        assert f"1 picture: {kind}" in html
    assert "6 pictures are JPEG YCbCr; the others were converted:" in html
    assert '<th style="width:9em">larger originals rejected (--max-pixels)</th>' in html
    # Rejected: the one that is cut. Kinds: three pairs. Before and after: every sample, nine pairs.
    assert len(images_of(html)) >= 1 + 2 * 3 + 2 * 4


def test_the_page_needs_nothing_else(odd_set: Path, odd_source: Path, tmp_path: Path) -> None:
    html = written(odd_set, tmp_path, odd_source)
    assert re.findall(r"(?:src|href)=\"(?!data:)", html) == []
    assert "http" not in html.replace('http-equiv="Content-Security-Policy"', "")
    assert "url(" not in html


def test_names_are_shown_as_text(odd_set: Path, odd_source: Path, tmp_path: Path) -> None:
    html = written(odd_set, tmp_path, odd_source)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;" in html
    assert "text&lt;i&gt;.JPEG" in html


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_is_text(name: str) -> None:
    html = page._render(**_values(name))
    assert "\x1b" not in html
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in html


def _values(name: str) -> dict[str, object]:
    from prep.report.contents import Contents

    contents = Contents(Path(name), [], [], None, [name])
    return {
        "folder": name,
        "contents": contents,
        "lacking": name,
        "views": [],
        "reasons": [],
        "statistics": None,
        "chart": charts,
    }


def test_equal_sets_give_equal_pages(odd_set: Path, odd_source: Path, tmp_path: Path) -> None:
    pages = [written(odd_set, tmp_path, odd_source) for _ in range(2)]
    assert pages[0] == pages[1]


def test_without_the_source_there_are_prepared_pictures_alone(
    prepared_set: Path, tmp_path: Path
) -> None:
    lacking = page.write(prepared_set, tmp_path / "page.html", None)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert lacking == "no originals are shown: give the folder they lie in with --source SRC"
    assert lacking in html
    assert 'alt="original' not in html
    assert 'alt="prepared' in html
    assert 'alt="mean image"' in html


def test_a_source_that_is_gone_is_refused(prepared_set: Path, tmp_path: Path) -> None:
    said = "gone does not exist; give the folder of the originals, or leave it out"
    with pytest.raises(UserError, match=said):
        written(prepared_set, tmp_path, tmp_path / "gone")
    assert not list(tmp_path.iterdir())


def test_originals_that_were_all_enlarged_are_told(
    odd_set: Path, prepared_set: Path, tmp_path: Path
) -> None:
    said = "All were enlarged: <code>prep resize --size 50</code>"
    assert said in written(odd_set, tmp_path)  # of 40 to 60 pixels, the median of 50
    assert "All were enlarged" not in written(prepared_set, tmp_path)


def test_another_source_is_noticed(odd_set: Path, odd_source: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(odd_source, tmp_path / "other"))
    for path in other.rglob("*.JPEG"):
        path.write_bytes(small_jpeg(1, 33, 44))
    html = written(odd_set, tmp_path, other)
    assert "another picture lies there, of 33x44 pixels" in html
    assert 'alt="original' not in html


def test_betons_of_build_show_their_samples(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    build.build(find_source(source), dest, plan.Options(jobs=1, max_rejects=0.0))
    html = written(dest, tmp_path, source)
    sides = [image.size for image in images_of(html)]
    assert sides.count((256, 256)) >= 2 * 9 + 1  # both splits' samples and the mean image
    assert 'alt="original' in html
    assert json.loads((dest / "train.json").read_text())["sha256"] in html


@pytest.mark.parametrize(("mode", "order"), [("raw", "class"), ("jpg", "shuffled")])
def test_a_beton_whose_samples_are_not_the_rows_is_told(
    mode: str, order: str, prepared_set: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(prepared_set, tmp_path / "out"))
    seed = 0 if order == "shuffled" else None
    write_beton(copy / "train", copy / "train.beton", mode, 1, Order(order, seed))
    shutil.rmtree(copy / "train")
    html = written(copy, tmp_path)
    assert f"mode {mode}, order {order}" in html
    assert "has changed" not in html


def test_where_nothing_was_finished_the_rejects_are_shown(odd_source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="more than --max-rejects"):
        resize.resize(find_source(odd_source), out, plan.Options(jobs=1))
    html = written(out, tmp_path, odd_source)
    assert "No split is finished" in html
    assert "the file is empty" in html


def test_reasons_that_differ_in_numbers_alone_are_one(tmp_path: Path) -> None:
    reasons = [f"{side}x9 is more than {limit} pixels" for side, limit in ((7, "8"), (99, "1,234"))]
    lines = [{"split": "train", "path": "p", "reason": reason} for reason in reasons]
    (tmp_path / "rejects.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (reason,) = read_contents(tmp_path).reasons
    assert (reason.pattern, reason.count) == ("NxN is more than N pixels", 2)


def test_a_changed_picture_is_named_in_its_place(prepared_set: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(prepared_set, tmp_path / "out"))
    for path in (copy / "val").rglob("*.JPEG"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    for path in (copy / "train").rglob("*.JPEG"):
        path.unlink()
    (copy / "train.stats.npz").write_bytes(b"no statistics")
    html = written(copy, tmp_path)
    assert "has changed since it was prepared" in html
    assert "cannot be read: No such file or directory" in html
    assert "train.stats.npz" in html
    assert 'alt="prepared' not in html


@pytest.mark.parametrize("what", ["gone", "file", "empty", "train", "card"])
def test_what_is_no_prepared_set_is_told(what: str, prepared_set: Path, tmp_path: Path) -> None:
    place = tmp_path / what
    if what == "file":
        place.write_bytes(b"")
    if what == "empty":
        place.mkdir()
    if what == "train":
        place = prepared_set / "train"
    if what == "card":
        Path(shutil.copytree(prepared_set, place))
        for name in ("train", "val"):
            (place / f"{name}.json").write_text("{}")
    with pytest.raises(UserError, match=re.escape(str(place))) as caught:
        page.write(place, tmp_path / "page.html", None)
    if what == "train":
        assert f"give {prepared_set}" in str(caught.value)
    assert not (tmp_path / "page.html").exists()


def test_manifest_and_balance_are_compared(tmp_path: Path) -> None:
    """197 classes of a set of 200, of one picture each."""
    from prep.manifest import load

    manifest = load("tiny-imagenet-200")
    root = tmp_path / "src"
    data = small_jpeg(0, 8, 8)
    for entry in manifest.classes[:-3]:
        (root / "train" / entry.folder).mkdir(parents=True)
        (root / "train" / entry.folder / "0.JPEG").write_bytes(data)
    out = tmp_path / "out"
    options = plan.Options(jobs=1, settings=plan.Settings(side=8))
    resize.resize(find_source(root), out, options)
    html = written(out, tmp_path)
    assert f"197 classes of 197 differ from {manifest.title}" in html
    assert "3 classes of it are not here." in html
    assert "1 of 500" in html
    assert f"Furthest from {manifest.title}" in html
    assert "left:calc(100.0% - 2px)" in html  # 500 of 500


def test_few_classes_are_compared_where_one_data_set_alone_has_them(tmp_path: Path) -> None:
    """Tiny ImageNet's 200 classes are ImageNet's too, and Caltech's are nobody else's."""

    def page_of(*classes: str) -> str:
        root, out = tmp_path / f"src{classes[0]}", tmp_path / f"out{classes[0]}"
        for name in classes:
            (root / name).mkdir(parents=True)
            (root / name / "0.JPEG").write_bytes(small_jpeg(0, 8, 8))
        resize.resize(find_source(root), out, plan.Options(jobs=1, settings=plan.Settings(side=8)))
        return written(out, tmp_path)

    page = page_of("n01440764", "n01443537")  # tench is ImageNet's, goldfish Tiny ImageNet's too
    assert "2 classes of 2 differ from ImageNet" in page
    assert "998 classes of it are not here." in page
    assert "1 of 1,300" in page
    assert "differ from" not in page_of("n01443537", "n01629819")


# --------------------------------------------------------------------------- originals


def found(root: Path, *sources: str, seconds: float = 60.0) -> dict[str, bytes | str]:
    return {
        picture.name: picture.data if picture.data is not None else picture.reason or ""
        for picture in originals.read_originals(root, sources, seconds)
    }


def test_originals_are_found_in_files_tars_and_tars_of_tars(tmp_path: Path) -> None:
    inner = tar_bytes({"a_0.JPEG": b"zero", "a_1.JPEG": b"one"})
    (tmp_path / "train.tar").write_bytes(
        tar_bytes({"a.tar": inner, "b.tar": tar_bytes({"a_0.JPEG": b"other"}), "flat.JPEG": b"f"})
    )
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y.JPEG").write_bytes(b"file")
    assert found(
        tmp_path,
        "train.tar/a.tar/a_1.JPEG",
        "train.tar/b.tar/a_0.JPEG",
        "train.tar/flat.JPEG",
        "x/y.JPEG",
        "x/z.JPEG",
        "train.tar/a.tar/gone.JPEG",
    ) == {
        "train.tar/a.tar/a_1.JPEG": b"one",
        "train.tar/b.tar/a_0.JPEG": b"other",
        "train.tar/flat.JPEG": b"f",
        "x/y.JPEG": b"file",
        "x/z.JPEG": originals.NOT_THERE,
        "train.tar/a.tar/gone.JPEG": originals.NOT_THERE,
    }


@pytest.mark.parametrize("named", [True, False])
def test_originals_are_found_in_parquet(named: bool, tmp_path: Path) -> None:
    rows = [{"bytes": b"%d" % row, "path": f"p{row}.jpg"} for row in range(5)]
    images = pa.array(rows) if named else pa.array([row["bytes"] for row in rows])
    table = pa.table({"image": images, "label": pa.array([0] * 5)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    names = [f"t.parquet/p{row}.jpg" if named else f"t.parquet/{row:08d}" for row in (4, 1)]
    assert found(tmp_path, *names) == {names[0]: b"4", names[1]: b"1"}


def test_every_source_s_own_names_are_found(source: Path) -> None:
    """The names that a listing gives are those that are looked for."""
    split = find_source(source).splits["train"]
    wanted = split.listing.names
    read = {picture.name: picture.data for picture in split.read(source, split.listing)}
    assert found(source, *wanted) == read


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a\0b", "x/../../secret", ""])
def test_no_name_leads_out_of_the_source(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "src" / "x").mkdir(parents=True)
    assert found(tmp_path / "src", name) == {name: originals.NOT_THERE}


def test_the_time_for_originals_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(tar_bytes({"a": b"a"}))
    (tmp_path / "f.JPEG").write_bytes(b"f")
    names = ("t.tar/a", "f.JPEG")
    assert found(tmp_path, *names, seconds=-1.0) == dict.fromkeys(names, originals.NO_TIME)


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(tar_bytes({"a": b"a" * 600})[:900])
    assert "the source cannot be read" in str(found(tmp_path, "t.tar/b")["t.tar/b"])


# --------------------------------------------------------------------------- choice, charts


def test_the_extremes_are_chosen(odd_set: Path) -> None:
    split = read_contents(odd_set).splits[0]
    reasons = {one.why: one.number for one in choice.pairs(split)}
    area = split.widths * split.heights
    taken = np.flatnonzero(split.ok)
    assert area[reasons["the smallest original"]] == area[taken].min()
    assert area[reasons["the largest original"]] == area[taken].max()


def test_extremes_of_pictures_that_are_all_alike_are_not_told(prepared_set: Path) -> None:
    split = read_contents(prepared_set).splits[0]
    alike = dataclasses.replace(
        split, widths=np.full_like(split.widths, 64), heights=np.full_like(split.heights, 64)
    )
    assert {one.why for one in choice.pairs(alike)} == {""}


def test_a_scatter_keeps_every_point_inside() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 70_000, (2, 100_000), dtype=np.int32)
    made = charts.scatter(sizes[0], sizes[1], 256)
    points = np.array(
        [
            [float(part) for part in point.split()]
            for _, path in made.shades
            for point in re.findall(r"M([\d. ]+)h0", path)
        ]
    )
    assert len(points) == len(np.unique(points, axis=0)) <= 9000
    assert (points > 0).all()
    assert (points[:, 0] < charts.WIDTH).all()
    assert (points[:, 1] < charts.HEIGHT).all()
    for ticks in (made.x_ticks, made.y_ticks):
        places = [tick.place for tick in ticks]
        assert np.abs(np.diff(places)).min() >= charts.LABEL


def test_a_scatter_shows_where_most_pictures_are() -> None:
    widths = np.array([500] * 60 + [300] * 5 + [100], np.int32)
    made = charts.scatter(widths, widths, 256)
    assert made.fullest == 60
    assert [path.count("M") for _, path in made.shades] == [1, 1, 1]
    opacities = [opacity for opacity, _ in made.shades]
    assert opacities == sorted(opacities)
    assert opacities[-1] == 1.0


def test_a_scatter_of_one_size() -> None:
    made = charts.scatter(np.array([32, 32], np.int32), np.array([32, 32], np.int32), 256)
    assert [tick.text for tick in made.x_ticks] == ["32"]
    assert made.side_x is None


def test_a_damaged_jpeg_is_shown_as_far_as_it_goes() -> None:
    data = jpeg_bytes(smooth_picture(np.random.default_rng(3), 80, 60))
    uri, width, height = pictures.original(data[: len(data) // 2], None)
    assert uri.startswith("data:image/jpeg;base64,")
    assert (width, height) == (80, 60)
    with pytest.raises(RejectedImageError):
        pictures.original(b"no picture", None)


# --------------------------------------------------------------------------- a browser

WRAPPER = """<!doctype html><body>
<iframe id="page" src="page.html" width="400" height="800"></iframe>
<iframe id="wide" src="page.html" width="1280" height="800"></iframe><script>
onload = () => { const told = [];
for (const id of ["page", "wide"]) {
  const page = document.getElementById(id).contentDocument, root = page.documentElement;
  told.push([root.scrollWidth, root.clientWidth, page.images.length,
    [...page.images].filter(image => !image.naturalWidth).length, page.scripts.length]); }
document.title = "told " + JSON.stringify(told); };
</script></body>"""


@pytest.mark.soak
def test_a_browser_shows_it_without_errors_or_sideways_scroll(
    odd_set: Path, odd_source: Path, tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no chromium")
    written(odd_set, tmp_path, odd_source)
    (tmp_path / "wrapper.html").write_text(WRAPPER, encoding="utf-8")
    ended = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--allow-file-access-from-files", "--enable-logging=stderr"),
            *("--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--dump-dom", f"file://{tmp_path / 'wrapper.html'}"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CONSOLE" not in ended.stderr
    told = re.search(r"<title>told (.*?)</title>", ended.stdout)
    assert told, ended.stdout[-500:]
    for scroll, client, count, broken, scripts in json.loads(told[1]):
        assert scroll <= client
        assert count > 10
        assert (broken, scripts) == (0, 0)
