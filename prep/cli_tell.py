"""What the commands that prepare a source say: of the source, and of what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prep.program import counted, rate, say, say_json

if TYPE_CHECKING:
    from prep.finish import SplitSummary
    from prep.resize import PartSummary
    from prep.sources.listing import Source


def tell(
    summaries: list[SplitSummary], out: Path, ending: str, seconds: float, as_json: bool
) -> None:
    """What became of each split, which is OUT/<split><ending>."""
    if as_json:
        splits = {
            summary.split: {
                "path": f"{out / summary.split}{ending}",
                "images": summary.samples,
                "rejected": summary.rejected,
                "already_done": summary.already_done,
                "done_now": summary.done_now,
            }
            for summary in summaries
        }
        rejects = str(out / "rejects.jsonl")
        say_json({"splits": splits, "rejects": rejects, "seconds": seconds})
        return
    for summary in summaries:
        state = ", already prepared" if summary.already_done else ""
        say(
            f"{out / summary.split}{ending}: {counted(summary.samples, 'image')}, "
            f"{summary.rejected} rejected{state}"
        )
    done = sum(summary.done_now for summary in summaries)
    if done:
        say(f"{counted(done, 'picture')} in {seconds:.1f} s, {rate(done, seconds)}")
    if any(summary.rejected for summary in summaries):
        say(f"rejected with their reasons: {out / 'rejects.jsonl'}")


def tell_part(
    summaries: list[PartSummary], out: Path, part: str, seconds: float, as_json: bool
) -> None:
    """What one of the parts of a run has done, and what is left."""
    if as_json:
        splits = {
            summary.split: {
                "done_now": summary.done_now,
                "units": summary.units,
                "missing": summary.missing,
            }
            for summary in summaries
        }
        say_json({"part": part, "splits": splits, "seconds": seconds})
        return
    for summary in summaries:
        if not summary.units:
            say(f"{out / summary.split}: already prepared")
        else:
            done = f"part {part}, {counted(summary.done_now, 'picture')}"
            left = f"{summary.missing} of {counted(summary.units, 'unit')} left by all parts"
            say(f"{out / summary.split}: {done}; {left}")
    if pictures := sum(summary.done_now for summary in summaries):
        say(f"{counted(pictures, 'picture')} in {seconds:.1f} s, {rate(pictures, seconds)}")
    if any(summary.units for summary in summaries):
        say("when every part is done, the same command without --part finishes")


def tell_skipped(source: Source) -> None:
    """What was passed over in a source, on standard error."""
    skipped = source.skipped
    if skipped.count:
        say(
            f"{counted(skipped.count, 'file')} passed over, such as {skipped.first}: no pictures "
            "by their names, or no regular files",
            err=True,
        )
    if skipped.hidden:
        say(
            f"{counted(len(skipped.hidden), 'folder')} of pictures passed over, such as "
            f"{skipped.hidden[0]}: names that begin with a dot are hidden ones",
            err=True,
        )


def tell_notes(notes: list[str]) -> None:
    """What may be a slip (prep.check.notes), on standard error."""
    for sentence in notes:
        say(f"note: {sentence}", err=True)
