"""The `prep` program: help at once, exit codes, one line for a failure, nothing half-written."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.metadata
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
from conftest import CLASSES, ODD_NAMES, fill_disk, small_jpeg, tar_bytes
from PIL import Image
from test_write import spoil_a_jpeg
from typer.main import get_command
from typer.testing import CliRunner

import prep
from prep import cli_look, handover, stats_sheet
from prep.beton import open_beton
from prep.cli import app, main
from prep.files import whole_file
from prep.handover import ClassEntry
from prep.manifest import load
from prep.plan import refuse_other_plan
from prep.program import UserError

COMMANDS = [
    "sample",
    "check",
    "resize",
    "build",
    "stats",
    "write-beton",
    "verify",
    "inspect",
    "report",
]


@dataclasses.dataclass
class Ended:
    """How a run of the program ended."""

    code: object
    out: str
    err: str


class Program(Protocol):
    def __call__(self, *arguments: str | Path) -> Ended: ...


@pytest.fixture
def prep_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """The program as a user starts it, in this process."""

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["prep", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        return Ended(caught.value.code, said.out, said.err)

    return run


@pytest.fixture
def copy(prepared_set: Path, tmp_path: Path) -> Path:
    """A prepared set that a test may change."""
    return Path(shutil.copytree(prepared_set, tmp_path / "out"))


# --------------------------------------------------------------------------- help and version


def test_the_commands_are_all_there() -> None:
    assert set(COMMANDS) <= set(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(command: list[str], option: str) -> None:
    result = CliRunner().invoke(app, [*command, option])
    assert result.exit_code == 0
    assert "Usage: " in result.output


def test_every_command_and_option_says_what_it_is_for() -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, (name, parameter.name)


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"prep {prep.__version__}\n")
    assert prep.__version__ == importlib.metadata.version("alexnet-ffcv")


def test_help_answers_at_once() -> None:
    """0.5 s on an idle machine; twice that here, where others may be at work."""
    command = [sys.executable, "-m", "prep.cli", "--help"]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"prep --help: {min(seconds):.2f} s of processor time")
    assert min(seconds) < 1.0


# --------------------------------------------------------------------------- its libraries


def test_the_program_starts_without_the_heavy_libraries() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import prep.cli, prep.handover, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.split(".")[0] for name in ended.stdout.split()}
    assert "prep" in loaded
    assert not loaded & {"numpy", "torch", "PIL", "pyarrow", "numba", "simplejpeg", "joblib"}


def test_no_module_of_prep_names_torch_ffcv_or_train() -> None:
    modules = sorted(Path(prep.__file__).parent.glob("*.py"))
    assert len(modules) > 10
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            heavy = {"torch", "torchvision", "ffcv", "train"}
            if module.stem != "scale":  # its backend opencv-2012 imports it when it is asked for
                heavy.add("cv2")
            assert not heavy & {name.split(".")[0] for name in names}, module.name


def test_prep_as_a_whole_loads_neither_torch_nor_ffcv() -> None:
    modules = [path.stem for path in Path(prep.__file__).parent.glob("[a-z]*.py")]
    program = "".join(f"import prep.{module}\n" for module in modules)
    program += "import sys; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in ended.stdout.split()}
    assert {"numpy", "PIL", "pyarrow", "numba"} <= loaded
    assert not loaded & {"torch", "torchvision", "ffcv", "cv2", "train"}


# --------------------------------------------------------------------------- wrong options: 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["resize"],
        ["resize", "a"],
        ["resize", "a", "b", "--nonsense"],
        ["resize", "a", "b", "--size", "x"],
        ["resize", "a", "b", "--size", "7"],
        ["resize", "a", "b", "--quality", "101"],
        ["resize", "a", "b", "--max-rejects", "1.5"],
        ["resize", "a", "b", "--jobs", "0"],
        ["write-beton", "a", "b.beton", "--mode", "png"],
        ["write-beton", "a", "b.beton", "--order", "random"],
        ["write-beton", "a", "b.beton", "--seed", "-1"],
        ["write-beton", "a", "b.beton", "--seed", "0"],
        ["write-beton", "a", "b.beton", "--seed", "3", "--order", "class"],
        ["resize", "a", "b", "--seed", "3"],
        ["build", "a", "b", "--seed", "3", "--val-fraction", "0"],
        ["write-beton", "a", "b.beton", "--verify", "no"],
        ["stats"],
        ["verify"],
        ["inspect", "a", "b"],
    ],
)
def test_a_wrong_option_exits_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


def test_a_seed_of_nothing_says_what_it_is_of() -> None:
    for command, what in (("write-beton", "--order shuffled"), ("resize", "--val-fraction")):
        result = CliRunner().invoke(app, [command, "a", "b.beton", "--seed", "3"])
        assert f"--seed 3 is of {what}; give both, or neither" in result.stderr


# --------------------------------------------------------------------------- failures: 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resize", "nowhere", "out"], "nowhere does not exist"),
        (["stats", "nowhere"], "nowhere does not exist"),
        (["write-beton", "nowhere", "a.beton"], "nowhere does not exist"),
        (["write-beton", "nowhere", "a.txt"], "a.txt should be called NAME.beton|nowhere does not"),
        (["verify", "nowhere.beton"], "nowhere.beton does not exist"),
        (["verify", "empty/train.json"], "empty/train.json is no .beton; give FILE.beton"),
        (["inspect", "nowhere.beton"], "nowhere.beton does not exist"),
        (["inspect", "empty"], "empty is not a file"),
        (["resize", "empty", "out"], "empty has no class folders"),
    ],
)
def test_a_failure_exits_1_with_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prep_program: Program,
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    ended = prep_program(*arguments)
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(rf"prep: .*({said}).*\n", ended.err)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_failure_of_the_real_process_is_one_line_and_exit_1() -> None:
    command = [sys.executable, "-m", "prep.cli", "verify", "no.beton"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("prep: no.beton does not exist")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--debug", "verify", "no.beton"], ["verify", "no.beton", "--debug"]]
)
def test_debug_lets_the_traceback_through(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["prep", *arguments])
    with pytest.raises(UserError, match=r"no\.beton does not exist"):
        main()


def test_a_damaged_beton_is_one_line_from_each_command(
    betons: Path, tmp_path: Path, prep_program: Program
) -> None:
    path = Path(shutil.copytree(betons, tmp_path / "b")) / "train.beton"
    data = bytearray(path.read_bytes())
    data[1 << 23 : (1 << 23) + 500] = bytes(500)
    path.write_bytes(data)
    for arguments in (["verify", path, "-j", "1"], ["inspect", path, "--png", tmp_path / "x.png"]):
        ended = prep_program(*arguments)
        assert ended.code == 1
        assert re.fullmatch(rf"prep: {path}: .*sample 0.*\n", ended.err)
    assert not (tmp_path / "x.png").exists()


def test_every_damaged_place_has_a_line_up_to_twenty(
    betons: Path, tmp_path: Path, prep_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(betons, tmp_path / "b")) / "train.beton"
    layout = open_beton(path).layout
    with path.open("r+b") as file:
        for sample in (2, 5, 11):
            file.seek(int(layout.ptr[sample]))
            file.write(b"no")
    ended = prep_program("verify", path, "-j", "1")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert [re.match(r"sample \d+ of class \w+ \(\w+\) at offset \d+: its", x) for x in lines]
    assert [int(line.split()[1]) for line in lines] == [2, 5, 11]
    assert f"prep: {path}: 3 damaged places; the first: {lines[0]}; write" in ended.err
    monkeypatch.setattr(cli_look, "MOST_LINES", 2)
    assert prep_program("verify", path, "-j", "1").out.splitlines() == [*lines[:2], "and 1 more"]


def test_a_full_disk_is_one_line_from_build_too(
    source: Path, small_disk: Path, tmp_path: Path, prep_program: Program
) -> None:
    fill_disk(small_disk, 25)
    options = ("--size", "64", "--jobs", "1")
    ended = prep_program("build", source, small_disk / "out", *options)
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(
        r"prep: .*/disk/out/\S+: No space left on device; make room, then run the same command "
        r"again\n",
        ended.err,
    )
    assert [path.name for path in (small_disk / "out").iterdir()] == [".prep"]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    for out in (small_disk / "out", tmp_path / "whole"):
        ended = prep_program("build", source, out, *options)
        assert (ended.code, ended.err) == (0, "")
    for path in (tmp_path / "whole").iterdir():
        assert (small_disk / "out" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_full_disk_is_one_line(source: Path, small_disk: Path, prep_program: Program) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 100_000))
    arguments = ["resize", source, small_disk / "out", "--jobs", "1"]
    ended = prep_program(*arguments)
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(
        r"prep: cannot write .*/disk/out/train\.partial/.*: No space left on device; make room, "
        r"then run the same command again: finished work is kept\n",
        ended.err,
    )
    filler.unlink()
    assert prep_program(*arguments).code == 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "vanished",
            r".*_3\.JPEG cannot be read: No such file.*; remove this prepared set and run.*",
        ),
        ("full disk", r".*train\.beton.*: No space left on device; make room, then run the same.*"),
        ("read-only", r"cannot write .*train\.beton: Read-only file system; give a folder.*"),
        ("second run", r".*train\.beton is being written by another run; wait for it or.*"),
    ],
)
def test_what_stops_write_beton_is_one_line_and_leaves_nothing(
    copy: Path, small_disk: Path, tmp_path: Path, prep_program: Program, fault: str, said: str
) -> None:
    folder = small_disk if fault in ("full disk", "read-only") else tmp_path / "betons"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as running:
        if fault == "vanished":
            sorted((copy / "train").rglob("*_3.*"))[0].unlink()
        elif fault == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        elif fault == "second run":
            running.enter_context(whole_file(folder / "train.beton"))
        ended = prep_program("write-beton", copy / "train", folder / "train.beton")
        assert (ended.code, ended.out) == (1, "")
        assert re.fullmatch(rf"prep: {said}\n", ended.err)
        left = {path.name for path in folder.iterdir()}
        kept = fault in ("second run", "full disk")
        assert left == ({"train.beton.partial"} if kept else set())


@pytest.mark.parametrize(
    ("command", "there", "said"),
    [
        ("build", "", r"cannot create .*disk/out: Read-only file system; give another folder"),
        (
            "build",
            "out",
            r".*disk/out/\.prep: Read-only file system; give a place that this user .*",
        ),
        ("build", "out/.prep", r".*disk/out/\.prep/lock: Read-only file system; give a place .*"),
        (
            "write-beton",
            "out",
            r"cannot write .*out/train\.beton: Read-only file system; give a .*",
        ),
    ],
)
def test_a_read_only_place_is_refused_before_any_work(
    prepared_set: Path,
    source: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    prep_program: Program,
    command: str,
    there: str,
    said: str,
) -> None:
    for work in ("prep.build.stream_split", "prep.write.ensure_page"):
        monkeypatch.setattr(work, lambda *_: pytest.fail("it has begun to work"))
    (small_disk / there).mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    before = sorted(small_disk.rglob("*"))
    out = small_disk / "out"
    arguments = {
        "build": (source, out),
        "write-beton": (prepared_set / "train", out / "train.beton"),
    }
    ended = prep_program(command, *arguments[command], "--jobs", "1")
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(rf"prep: {said}\n", ended.err)
    assert sorted(small_disk.rglob("*")) == before


def test_verify_decode_refuses_what_the_headers_do_not_show(
    copy: Path, tmp_path: Path, prep_program: Program
) -> None:
    name = spoil_a_jpeg(copy)
    beton = tmp_path / "betons" / "train.beton"
    beton.parent.mkdir()
    arguments = ("write-beton", copy / "train", beton)
    ended = prep_program(*arguments, "--verify", "decode")
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(
        rf"prep: sample 4, \S+/{name}, cannot be decoded \(.+\); run `prep resize` again\n",
        ended.err,
    )
    assert list(beton.parent.iterdir()) == []
    assert prep_program(*arguments).code == 0
    assert beton.exists()


def test_ctrl_c_ends_a_run_without_a_traceback_and_it_carries_on(
    source: Path, tmp_path: Path
) -> None:
    program = (
        "import os, signal, sys\n"
        # a job in the background has inherited that it is ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from prep import cli, resize\n"
        "from prep.sources import listing\n"
        "real = resize.run_units\n"
        "def interrupted(function, units, *rest):\n"
        "    for result in real(function, units, *rest):\n"
        "        yield result\n"
        "        os.killpg(0, signal.SIGINT)\n"  # as a terminal does: to the workers too
        "resize.run_units = interrupted\n"
        "listing.UNIT_SIZE = 3\n"
        "cli.main()\n"
    )
    arguments = ["resize", str(source), str(tmp_path / "out"), "--jobs", "2"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert ended.returncode in (1, 130, -signal.SIGINT)
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out" / "train").exists()
    finished = len(list((tmp_path / "out" / ".prep" / "train").glob("0*.parquet")))
    assert 1 <= finished <= 6
    resume = program.replace("os.killpg(0, signal.SIGINT)", "pass")
    again = subprocess.run(
        [sys.executable, "-c", resume, *arguments[:-1], "1"], capture_output=True, check=False
    )
    assert again.returncode == 0
    assert not list(tmp_path.rglob("*.partial"))


# --------------------------------------------------------------------------- the whole line


def test_from_pictures_to_a_verified_beton(source: Path, tmp_path: Path) -> None:
    runner = CliRunner()

    def run(*arguments: str | Path) -> str:
        result = runner.invoke(app, [*map(str, arguments), *one_job(arguments)])
        assert result.exit_code == 0, result.output
        return result.output

    def one_job(arguments: tuple[str | Path, ...]) -> list[str]:
        return [] if arguments[0] == "inspect" else ["--jobs", "1"]

    out, beton = tmp_path / "out", tmp_path / "train.beton"
    said = run("resize", source, out, "--size", "64", "--quality", "90")
    assert f"{out / 'train'}: 18 images, 0 rejected\n" in said
    assert "27 pictures in " in said
    said = run("resize", source, out, "--size", "64", "--quality", "90")
    assert f"{out / 'train'}: 18 images, 0 rejected, already prepared\n" in said
    said = run("stats", out / "train", "--png", tmp_path / "mean.png")
    assert "principal axis 3" in said
    assert "train.stats.npz: 18 images in" in said
    assert "AlexNet's authors" not in said
    assert "warning" not in run("write-beton", out / "train", beton)
    measured = (out / "train.stats.npz").read_bytes()
    assert (tmp_path / "train.stats.npz").read_bytes() == measured
    (tmp_path / "train.stats.npz").unlink()
    assert f"{tmp_path / 'train.stats.npz'}: 18 images in" in run("stats", beton)
    assert (tmp_path / "train.stats.npz").read_bytes() == measured
    assert "18 samples whole, sha256 " in run("verify", beton)
    said = run("inspect", beton, "--png", tmp_path / "sheet.png")
    assert all(line.count("│") == 3 for line in said.splitlines() if "│" in line)
    assert "64x64x3, JPEGs of quality 90" in said
    assert f"{CLASSES[0]} first" in said
    for name, size in (("mean", (stats_sheet.WIDTH, stats_sheet.HEIGHT)), ("sheet", (1324, 304))):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == size


def test_stats_of_imagenet_s_classes_shows_the_authors_beneath_its_own(
    copy: Path, prep_program: Program
) -> None:
    card = handover.read_card(copy / "train.json")
    imagenet = load("imagenet-1k")
    classes = tuple(ClassEntry(known.folder, known.name, 0) for known in imagenet.classes)
    handover.write_card(dataclasses.replace(card, classes=classes), copy / "train.json")
    ended = prep_program("stats", copy / "train", "--jobs", "1")
    assert (ended.code, ended.err) == (0, "")
    lines = [line.split("│")[1:-1] for line in ended.out.splitlines() if "│" in line]
    shown = [(line[0].strip(), [float(v) for v in line[1:] if v.strip()]) for line in lines]
    ours, theirs = shown[::2], shown[1::2]
    axes = [f"principal axis {number}" for number in (1, 2, 3)]
    assert [name for name, _ in ours] == ["mean", *axes]
    (authors,) = imagenet.statistics
    assert {name for name, _ in theirs} == {authors.by}
    assert theirs[0][1] == list(authors.channel_mean)
    for axis, ((_, measured), (_, published)) in enumerate(zip(ours[1:], theirs[1:], strict=True)):
        turned = published[:3]
        assert sum(a * b for a, b in zip(turned, measured[:3], strict=True)) >= 0
        assert [abs(value) for value in turned] == [abs(value) for value in authors.axes[axis]]
        assert published[3] == authors.standard_deviations[axis]
    assert f"{authors.by}: {authors.source}" in ended.out


def test_missing_statistics_are_a_warning_that_says_what_to_run(copy: Path, tmp_path: Path) -> None:
    (copy / "train.stats.npz").unlink()
    result = CliRunner().invoke(
        app, ["write-beton", str(copy / "train"), str(tmp_path / "t.beton")]
    )
    assert result.exit_code == 0
    assert f"run `prep stats {copy / 'train'}`" in result.stderr
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "t.beton"), "-j1"])
    assert result.exit_code == 0
    assert f"run `prep stats {tmp_path / 't.beton'}`" in result.stderr
    result = CliRunner().invoke(app, ["write-beton", str(copy / "val"), str(tmp_path / "v.beton")])
    assert result.stderr == ""


def test_a_shuffled_beton_says_so(copy: Path, tmp_path: Path) -> None:
    beton = str(tmp_path / "t.beton")
    options = ["--order", "shuffled", "--seed", "11", "--verify", "decode"]
    written = CliRunner().invoke(app, ["write-beton", str(copy / "train"), beton, *options])
    assert written.exit_code == 0
    shown = CliRunner().invoke(app, ["inspect", beton], env={"COLUMNS": "200"})
    assert "shuffled from seed 11" in shown.output


def test_what_a_stopped_run_had_written_is_told(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["write-beton", str(copy / "train"), str(tmp_path / "t.beton")]
    with monkeypatch.context() as patch:
        patch.setattr("prep.journal.Journal.cut_off", interrupt)
        assert CliRunner().invoke(app, command).exit_code == 130
    result = CliRunner().invoke(app, command)
    assert "18 of them were there, written by a run that was stopped\n" in result.stdout
    assert "were there" not in CliRunner().invoke(app, command).stdout


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_a_report_without_the_source_it_names_writes_nothing(
    copy: Path, prep_program: Program
) -> None:
    for wrong, state in (("gone", "does not exist"), ("train.json", "is not a folder")):
        ended = prep_program("report", copy, "--source", copy / wrong)
        said = f"prep: --source {copy / wrong} {state}; give the folder of the originals, or leave"
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith(said)
        assert not (copy / "report.html").exists()


def test_a_card_of_another_beton_is_not_shown_for_this_one(
    betons: Path, tmp_path: Path, prep_program: Program
) -> None:
    path = Path(shutil.copytree(betons, tmp_path / "b")) / "train.beton"
    shutil.copy(path.with_name("val.json"), path.with_name("train.json"))
    ended = prep_program("inspect", path)
    assert (ended.code, ended.out) == (1, "")
    assert "has 18 samples, the card beside it says 9: they are not of one make" in ended.err


def test_rejects_and_files_passed_over_are_told(source: Path, tmp_path: Path) -> None:
    src = Path(shutil.copytree(source, tmp_path / "src"))
    (src / "train" / CLASSES[0] / "bad.png").write_bytes(b"no picture")
    (src / "train" / CLASSES[0] / "notes.txt").write_text("no picture by its name")
    shutil.copytree(src / "train" / CLASSES[1], src / "train" / ".old")
    (src / "train" / ".git").mkdir()
    (src / "train" / ".git" / "config").write_text("no picture")
    arguments = ["resize", str(src), str(tmp_path / "out"), "--size", "32", "--jobs", "1"]
    result = CliRunner().invoke(app, arguments)
    assert "1 of 19 pictures of train were rejected" in str(result.exception)
    result = CliRunner().invoke(app, [*arguments, "--max-rejects", "0.1"])
    assert result.exit_code == 0
    assert "18 images, 1 rejected\n" in result.stdout
    assert f"rejected with their reasons: {tmp_path / 'out' / 'rejects.jsonl'}" in result.stdout
    assert f"1 file passed over, such as train/{CLASSES[0]}/notes.txt" in result.stderr
    assert "1 folder of pictures passed over, such as train/.old: names that beg" in result.stderr


def test_notes_are_told_of_what_may_be_a_slip(
    source: Path, tmp_path: Path, prep_program: Program
) -> None:
    alone = source / "train"
    by_resize = "note: no validation split; --val-fraction 0.2 would make one of train\n"
    by_check = (
        "note: no validation split; `prep resize --val-fraction 0.2` would make one of train\n"
    )
    small = ("--size", "16", "--jobs", "1")
    assert prep_program("check", alone, "--jobs", "1").err.startswith(by_check)
    assert by_resize in prep_program("build", alone, tmp_path / "dest", *small).err
    assert by_resize in prep_program("resize", alone, tmp_path / "out", *small).err
    for extra in (("--split", "train"), ("--val-fraction", "0.2"), ("--part", "1/1")):
        ended = prep_program("resize", alone, tmp_path / extra[0], *small, *extra)
        assert (ended.code, "note: " in ended.err) == (0, False), extra


def test_names_in_square_brackets_are_shown_as_they_are(copy: Path, tmp_path: Path) -> None:
    beton = tmp_path / "[" / "x] [red].beton"  # "[/x]" would end a tag
    beton.parent.mkdir()
    runner = CliRunner()
    assert runner.invoke(app, ["write-beton", str(copy / "val"), str(beton)]).exit_code == 0
    result = runner.invoke(app, ["inspect", str(beton)], env={"COLUMNS": "400"})
    assert result.exit_code == 0
    assert str(beton) in result.output


def test_odd_names_of_classes_pass_through_every_command(
    tmp_path: Path, prep_program: Program
) -> None:
    names = [name[:60] for name in ODD_NAMES]
    for number, name in enumerate(names):
        (tmp_path / "src" / name).mkdir(parents=True)
        (tmp_path / "src" / name / f"{number}.jpg").write_bytes(small_jpeg(number))
    (tmp_path / "src" / "words.txt").write_text(f"{names[0]}\n$math$_{{x}}^2\tan \x1b[1mname\n")
    beton, png = tmp_path / "d" / "train.beton", tmp_path / "x.png"
    for arguments in (
        ("check", tmp_path / "src", "-j1"),
        ("build", tmp_path / "src", tmp_path / "d", "--size", "16", "-j1"),
        ("stats", beton, "-j1"),
        ("verify", beton, "-j1"),
        ("inspect", beton, "--png", png),
    ):
        ended = prep_program(*arguments)
        assert ended.code == 0, ended.err
        assert not set(ended.out + ended.err) & {"\x1b", "\a", "\b", "\r", "\u202e", "\u2028"}
    with Image.open(png) as picture:
        assert picture.size == (1324, 304)
    shown = " ".join(prep_program("inspect", beton).out.split())
    assert "an \\x1b[1mname" in shown
    assert "1 sample each" in shown


# --------------------------------------------------------------------------- sources


@pytest.fixture
def cifar_folders(tmp_path: Path) -> Path:
    """Six of CIFAR-10's classes, two pictures each: half of it and more, so it is taken for it."""
    for name in ("airplane", "automobile", "bird", "cat", "deer", "dog"):
        (tmp_path / "src" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "src" / name / f"{number}.jpg").write_bytes(small_jpeg(number))
    return tmp_path / "src"


def test_check_tells_what_is_missing_and_writes_nothing(
    prep_program: Program, cifar_folders: Path
) -> None:
    before = sorted(cifar_folders.rglob("*"))
    ended = prep_program("check", cifar_folders, "--jobs", "1")
    assert ended.code == 1
    assert "class folders; CIFAR-10" in ended.out
    assert "contradiction: 4 of the 10 classes of cifar-10 missing: frog (frog)" in ended.out
    assert re.search(r"train\s*│\s*12\s*│\s*50,000", ended.out)
    assert re.search(r"prep: .*src contradicts CIFAR-10 in \d ways; mend it, or prepare", ended.err)
    assert re.search(r"what is there with `prep resize \S+src OUT --partial`", ended.err)
    assert sorted(cifar_folders.rglob("*")) == before


def test_check_of_an_unknown_set_only_tells(prep_program: Program, source: Path) -> None:
    ended = prep_program("check", source, "--jobs", "1", "--split", "val")
    assert ended.code == 0
    assert "known" not in ended.out
    assert re.search(r"val\s*│\s*9\s*│\s*3\s*│\s*3\s*│", ended.out)


def test_resize_refuses_what_contradicts_its_manifest_unless_told(
    prep_program: Program, cifar_folders: Path, tmp_path: Path
) -> None:
    arguments = ("resize", cifar_folders, tmp_path / "out", "--size", "16", "--jobs", "1")
    refused = prep_program(*arguments)
    assert refused.code == 1
    assert "contradicts CIFAR-10" in refused.err
    assert "--partial takes what is there" in refused.err
    assert not (tmp_path / "out").exists()
    assert prep_program(*arguments, "--partial").code == 0
    assert prep_program(*arguments, "--manifest", "nothing").err.startswith("prep: no manifest is")


def test_a_validation_split_is_drawn_and_another_fraction_refused(
    prep_program: Program, cifar_folders: Path, tmp_path: Path
) -> None:
    arguments = ("resize", cifar_folders, tmp_path / "out", "--size", "16", "--partial")
    assert prep_program(*arguments, "--val-fraction", "0.5", "--jobs", "1").code == 0
    for split in ("train", "val"):
        assert len(list((tmp_path / "out" / split).glob("*/*.jpg"))) == 6
    for changed, named in (
        (("--val-fraction", "0.4"), "0.4 of train with seed 0"),
        (("--val-fraction", "0.5", "--seed", "1"), "0.5 of train with seed 1"),
        ((), "none"),
    ):
        ended = prep_program(*arguments, *changed, "--jobs", "1")
        assert ended.code == 1
        was = "was prepared with --val-fraction 0.5 of train with seed 0"
        assert f"{was}, this command says {named};" in ended.err


def test_a_class_of_clutter_that_is_no_longer_asked_for_is_named(
    prep_program: Program, tmp_path: Path
) -> None:
    for name in ("001.ak47/001_0001.jpg", "056.dog/056_0001.jpg", "257.clutter/257_0001.jpg"):
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(small_jpeg(len(name)))
    arguments = ("resize", tmp_path / "src", tmp_path / "out", "--partial", "--jobs", "1")
    assert prep_program(*arguments, "--clutter").code == 0
    assert prep_program(*arguments, "--clutter").code == 0
    ended = prep_program(*arguments)
    assert ended.code == 1
    assert "was prepared with --clutter given, this command says none;" in ended.err


def test_what_an_older_prep_has_not_noted_is_no_contradiction(tmp_path: Path) -> None:
    old = {"val_fraction": "", "source": "abc"}
    new = {"val_fraction": "", "clutter": "", "manifest": "cifar-10", "source": "abc"}
    refuse_other_plan(old, new, tmp_path / "train", finished=True)
    with pytest.raises(UserError, match="from other pictures"):
        refuse_other_plan(old, new | {"source": "def"}, tmp_path / "train", finished=True)


def test_another_manifest_for_numbered_classes_is_named(
    prep_program: Program, tmp_path: Path
) -> None:
    files = {f"{label}.jpg": small_jpeg(label) for label in range(10)}
    files |= {f"{label}.cls": str(label).encode() for label in range(10)}
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "0.tar").write_bytes(tar_bytes(dict(sorted(files.items()))))
    arguments = ("resize", tmp_path / "src", tmp_path / "out", "--partial", "--jobs", "1")
    assert prep_program(*arguments).code == 0
    ended = prep_program(*arguments, "--manifest", "cifar-10")
    assert ended.code == 1
    assert "was prepared with --manifest none, this command says cifar-10;" in ended.err


def test_a_drawn_validation_split_is_the_same_when_it_is_prepared_alone(
    prep_program: Program, cifar_folders: Path, tmp_path: Path
) -> None:
    arguments = ("--size", "16", "--partial", "--val-fraction", "0.5", "--jobs", "1", "--split")
    assert prep_program("resize", cifar_folders, tmp_path / "at once", *arguments, "all").code == 0
    for split in ("val", "train"):
        ended = prep_program("resize", cifar_folders, tmp_path / "one by one", *arguments, split)
        assert ended.code == 0, ended.err
        whole, alone = (tmp_path / out / f"{split}.json" for out in ("at once", "one by one"))
        assert alone.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("split", ["train", "val", "all"])
def test_a_source_with_a_validation_split_is_not_divided_whatever_is_wanted(
    prep_program: Program, source: Path, tmp_path: Path, split: str
) -> None:
    ended = prep_program(
        "resize", source, tmp_path / "out", "--val-fraction", "0.5", "--jobs", "1", "--split", split
    )
    assert ended.code == 1
    assert "has a validation split; leave out --val-fraction" in ended.err


def test_validation_pictures_of_classes_that_train_lacks_are_left_out_when_told(
    prep_program: Program, source: Path, tmp_path: Path
) -> None:
    src = Path(shutil.copytree(source, tmp_path / "src"))
    shutil.rmtree(src / "train" / CLASSES[1])
    arguments = (src, tmp_path / "out", "--size", "16", "--jobs", "1")
    gap = f"3 pictures of val are of 1 class that train does not have: {CLASSES[1]}"
    refused = prep_program("resize", *arguments)
    assert refused.code == 1
    assert f"src is not whole: {gap}; `prep check` tells all" in refused.err
    assert not (tmp_path / "out").exists()
    checked = prep_program("check", src, "--jobs", "1", "--md5")
    assert checked.code == 1
    assert f"contradiction: {gap}\n" in checked.out
    assert "md5: nothing to check" in checked.out
    assert "src is not whole in 1 way; mend it" in checked.err
    taken = prep_program("resize", *arguments, "--partial")
    assert (taken.code, taken.err) == (0, "")
    assert f"{tmp_path / 'out' / 'val'}: 6 images, 0 rejected" in taken.out


def test_one_split_alone(prep_program: Program, source: Path, tmp_path: Path) -> None:
    arguments = ("resize", source, tmp_path / "out", "--size", "16", "--jobs", "1", "--split")
    assert prep_program(*arguments, "val").code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("rejects.jsonl", "val", "val.json", "val.parquet")
    ]
    ended = prep_program(*arguments, "test")
    assert ended.code == 1
    assert "has no split test; give another --split" in ended.err
    assert prep_program(*arguments, "all").code == 0
    assert (tmp_path / "out" / "train.json").exists()


def test_the_list_of_commands_cuts_no_sentence() -> None:
    listed = CliRunner().invoke(app, ["--help"]).output.partition("Commands:")[2]
    assert all(name in listed for name in COMMANDS)
    assert "..." not in listed


@pytest.mark.parametrize(("columns", "widest"), [("60", 60), ("", 120)])
def test_tables_are_as_wide_as_they_are_told(
    betons: Path, monkeypatch: pytest.MonkeyPatch, prep_program: Program, columns: str, widest: int
) -> None:
    """`make demo` shows through a pipe what fits its terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    lines = prep_program("inspect", betons / "train.beton").out.splitlines()
    assert 60 <= max(len(line) for line in lines[1:]) <= widest
    assert (max(len(line) for line in lines[1:]) > 60) == (widest > 60)
