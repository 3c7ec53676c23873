"""The edge of a command-line program: failures as one line, exit codes, wording, shared options.

For both programs; the standard library only.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

INTERRUPTED = 130  # exit code after Ctrl-C, 128 + SIGINT
TERMINATED = 143  # exit code after SIGTERM, 128 + SIGTERM
ENDINGS = {
    INTERRUPTED: "interrupted; the same command carries on or starts anew",
    TERMINATED: "ended by SIGTERM; the same command carries on or starts anew",
}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class ToldExit(SystemExit):
    """An exit whose reason has been told already."""


NOTHING: Mapping[str, Any] = MappingProxyType({})


class UserError(Exception):
    """Something the user can mend. The message is one line: the value, the limit, the next step.

    found: what --json prints beside the message; None where all of it has been printed.
    """

    def __init__(self, message: str, found: Mapping[str, Any] | None = NOTHING) -> None:
        super().__init__(message)
        self.found = found

    def __reduce__(self) -> tuple[type[UserError], tuple[object, ...]]:
        """From a worker process comes the message; a mapping that is a view has no pickle."""
        return type(self), self.args


# Characters that turn the direction of a line, whatever it holds: an order to the terminal, as the
# control characters (Cc) and the ends of lines and paragraphs (Zl, Zp) are. Cs: of no encoding.
TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
ORDERS = ("Cc", "Cs", "Zl", "Zp")

EXAMPLES = 3  # named in a message; the others are counted


def counted(count: int, noun: str) -> str:
    """Such as "1 class", "2 classes"."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def rate(done: int, seconds: float, unit: str = "images") -> str:
    """Such as "3,057 images/s", below ten "0.4 images/s"."""
    speed = done / max(seconds, 1e-9)
    return f"{speed:,.{0 if speed >= 10 else 1}f} {unit}/s"


def visible(text: str) -> str:
    """`text` in one line, with escapes for what a name may hold but a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode()
        if c in TURNS or unicodedata.category(c) in ORDERS
        else c
        for c in text
    )


def say_json(result: Mapping[str, Any]) -> None:
    """Print a result as one line of JSON on standard output."""
    print(json.dumps(dict(result)), flush=True)


def say(text: str, err: bool = False) -> None:
    """Print a line on standard output, or on standard error."""
    print(visible(text), file=sys.stderr if err else sys.stdout, flush=True)


def why_not(path: Path, kind: str) -> str:
    """What is wrong with a path that is no `kind`, such as "a file"."""
    return f"is not {kind}" if path.exists() else "does not exist"


def no_beton(path: Path) -> str:
    """Of a path that is no file."""
    return f"{path} {why_not(path, 'a file')}; give a .beton written by `prep write-beton`"


def first_line(error: BaseException) -> str:
    """Of what an error says; with its kind, where that is a number or nothing."""
    said = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__} {said}".rstrip() if said.isdigit() or not said else said


def examples(items: Sequence[str]) -> str:
    """The first few of a message's items."""
    return ", ".join(items[:EXAMPLES]) + (", ..." if len(items) > EXAMPLES else "")


def run_program(name: str, program: Callable[[list[str]], object]) -> NoReturn:
    """Run a command-line program on sys.argv and exit: 0, or 1 with one line on standard error.

    `--debug` anywhere on the command line shows the traceback instead of the line. With `--json`
    the line is on standard output too, as "error" of an object.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    as_json = "--json" in arguments
    signal.signal(signal.SIGTERM, _terminate)
    try:
        program(arguments)
    except (UserError, OSError) as error:
        if debug:
            raise
        found = error.found if isinstance(error, UserError) else NOTHING
        _fail(name, _message(error), found if as_json else None)
    except Exception as error:
        if debug:
            raise
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        advice = "a fault of this program: run again with --debug and report what it says"
        _fail(name, f"{text}; {advice}", NOTHING if as_json else None)
    except SystemExit as ending:
        message = ENDINGS.get(ending.code, "") if isinstance(ending.code, int) else ""
        if message and not isinstance(ending, ToldExit):
            _print_failure(name, message)
        # Of a wrong option: typer has told it, and raises from its own exception.
        usage = getattr(ending.__context__, "format_message", None)
        if usage is not None:
            message = usage()
        if as_json and message:
            _tell(message, NOTHING)
        raise
    sys.exit(0)


def _terminate(number: int, frame: object) -> NoReturn:
    """SIGTERM ends the program as Ctrl-C does: files that are half written are taken away."""
    del number, frame
    sys.exit(TERMINATED)


def _fail(name: str, message: str, found: Mapping[str, Any] | None) -> NoReturn:
    """Exit 1; `found`: what standard output gets beside the message, None: nothing."""
    _print_failure(name, message)
    if found is not None:
        _tell(message, found)
    sys.exit(1)


def _tell(message: str, found: Mapping[str, Any]) -> None:
    try:
        say_json({**found, "error": message})
    except BrokenPipeError:  # its reader has gone, and is not to be written to at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_failure(name: str, message: str) -> None:
    say(f"{name}: {' '.join(message.splitlines())}", err=True)


def _message(error: UserError | OSError) -> str:
    if isinstance(error, UserError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in NO_ROOM:
        advice = "make room, then run the same command again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "give a place that this user may read and write"
    else:
        advice = "run again with --debug to see where it happened"
    return f"{where}{error.strerror or error}; {advice}"


def png_path(path: Path | None) -> Path | None:
    """Check the value of a --png option before any work is done. Raises UserError."""
    return output_path(path, "--png", ".png")


def output_path(path: Path | None, option: str, ending: str) -> Path | None:
    """Check the name of a file that a command is to write. Raises UserError."""
    if path is None:
        return None
    if path.suffix.lower() != ending:
        raise UserError(f"{option} {path}: the name should end in {ending}")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: {path.parent} is not a folder; create it first")
    if path.is_dir():
        raise UserError(f"{option} {path}: that is a folder; give another name")
    return path
