"""Files and folders that appear whole or not at all, and their locks."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from prep.files import check_regular, read_regular, whole_file, whole_folder, write_first
from prep.program import UserError


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_file_appears_only_when_the_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failed_block_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(failure), whole_file(path) as partial:  # noqa: PT012
        partial.write_text("half")
        raise failure
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_a_second_writer_of_the_same_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as partial:
        partial.write_text("first")
        with pytest.raises(UserError, match=r"file is being written"), whole_file(path):
            pass
    assert path.read_text() == "first"


def test_writers_of_different_files_do_not_meet(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a") as a, whole_file(tmp_path / "b") as b:
        a.write_text("a")
        b.write_text("b")
    assert names_in(tmp_path) == ["a", "b"]


def test_what_a_killed_writer_left_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "file.partial").write_text("a long rest of a killed run")
    with whole_file(tmp_path / "file") as partial:
        assert partial.stat().st_size == 0
        with partial.open("rb+") as out:
            out.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_with_resume_what_a_killed_writer_left_is_kept(tmp_path: Path) -> None:
    path, partial = tmp_path / "file", tmp_path / "file.partial"
    partial.write_text("half")
    with pytest.raises(KeyboardInterrupt), whole_file(path, resume=True):
        raise KeyboardInterrupt
    with whole_file(path, resume=True) as same, same.open("a") as out:
        out.write(" and half")
    assert path.read_text() == "half and half"
    partial.write_text("half")
    with pytest.raises(OSError, match="file"), whole_file(path, resume=True):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert partial.read_text() == "half"
    with pytest.raises(OSError, match="file"), whole_file(path, resume=True):
        raise OSError(errno.EIO, "Input/output error")
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket"])
def test_what_is_no_file_is_refused_where_one_is_to_be_written(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.mknod(path, stat.S_IFSOCK)
    with (
        pytest.raises(UserError, match=rf"cannot write {path}: it is a .*{kind}"),
        whole_file(path),
    ):
        pytest.fail("a name in use was given out")
    assert names_in(tmp_path) == ["x"]


def test_a_link_stays_and_its_target_appears_whole(tmp_path: Path) -> None:
    link, target = tmp_path / "here" / "link", tmp_path / "there" / "target"
    for path in (link, target):
        path.parent.mkdir()
    link.symlink_to("../there/target")
    for text in ("new", "newer"):
        with whole_file(link) as partial:
            assert partial == target.with_name("target.partial")
            partial.write_text(text)
            with pytest.raises(UserError, match="is being written"), whole_file(target):
                pytest.fail("two writers of one file")
        assert link.is_symlink()
        assert target.read_text() == text
    assert names_in(target.parent) == ["target"]


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("x")
    with pytest.raises(UserError, match=r"x: Too many levels"), whole_file(tmp_path / "x"):
        pytest.fail("a name that leads nowhere was given out")


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, pathlib\n"
        "from prep.handover import whole_file\n"
        "with whole_file(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "file"
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -9
    assert not path.exists()
    with whole_file(path) as partial:
        partial.write_text("whole")
    assert path.read_text() == "whole"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no" / "file"
    with pytest.raises(UserError, match=r"cannot write .*no/file: No such file"), whole_file(path):
        pass


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="file") as caught, whole_file(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "file")


def test_a_failure_without_a_number_keeps_its_sentence(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot write mode P as JPEG"), whole_file(tmp_path / "file"):
        raise OSError("cannot write mode P as JPEG")


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "file"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_whole_folder_appears_only_when_the_block_has_ended(tmp_path: Path) -> None:
    (tmp_path / "set.partial").mkdir()
    (tmp_path / "set.partial/left").write_text("by a killed run")
    with whole_folder(tmp_path / "set") as partial:
        assert names_in(partial) == []
        (partial / "new").write_text("x")
        assert names_in(tmp_path) == ["set.partial"]
    assert names_in(tmp_path) == ["set"]
    assert names_in(tmp_path / "set") == ["new"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_name_in_use_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        (tmp_path / "set").mkdir()
        (tmp_path / "set/mine").write_text("x")
    else:
        (tmp_path / "set").write_text("x")
    before = names_in(tmp_path)
    with pytest.raises(UserError, match="give a new folder"), whole_folder(tmp_path / "set"):
        pytest.fail("a name in use was given out")
    assert names_in(tmp_path) == before


def test_a_regular_file_is_read_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert read_regular(tmp_path / "a") == b"0123456789"
    assert read_regular(tmp_path / "a", limit=10) == b"0123456789"
    with pytest.raises(OSError, match="more than 9 bytes"):
        read_regular(tmp_path / "a", limit=9)
    os.mkfifo(tmp_path / "pipe")
    for path, kind in (
        (tmp_path / "pipe", "pipe"),
        (Path("/dev/zero"), "dev"),
        (tmp_path, "folder"),
    ):
        for read in (read_regular, check_regular):
            with pytest.raises(OSError, match=rf"it is a {kind}.*, not a regular file"):
                read(path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")


@pytest.mark.parametrize("links", [True, False])
def test_of_several_first_writes_the_first_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refused(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refused)
    write_first(tmp_path / "plan", "one")
    write_first(tmp_path / "plan", "two")
    assert (tmp_path / "plan").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]
