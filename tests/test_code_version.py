"""The name of the code that runs: of every module's name and bytes, and of nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from prep import code_version
from prep.code_version import code_of

CODE = Path(code_version.__file__).parent


def test_a_copy_has_the_same_name_and_a_changed_one_another(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(CODE, tmp_path / "copy"))
    assert code_of(copy) == code_of(CODE)
    (copy / "notes.txt").write_text("no module")
    assert code_of(copy) == code_of(CODE)
    names = {code_of(CODE)}
    (copy / "sources" / "tars.py").rename(copy / "sources" / "tar.py")
    names.add(code_of(copy))
    (copy / "sources" / "tar.py").write_text("")
    names.add(code_of(copy))
    assert len(names) == 3
    assert code_of(CODE, copy) != code_of(copy, CODE)


def test_it_is_what_workers_are_asked_for() -> None:
    assert f" of code {code_of(CODE)}, " in code_version.code_version()
