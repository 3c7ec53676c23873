"""The measured parts of README.md and docs/*.md, written from benchmarks/results/.

    python -m benchmarks.measured

A part stands between `<!-- measured: NAME -->` and `<!-- end -->`; PARTS says which function writes
it. A figure that is wanted in a text and lies in a results file belongs into such a part.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import bench_beton, curves, demo, measured_train, resize_ways
from benchmarks import loader_ways as ways
from benchmarks.wording import (
    RESULTS,
    ROOT,
    Report,
    images,
    link,
    made_on,
    minutes,
    report,
    table,
    times,
    wrapped,
)
from prep.manifest import load

IMAGENET = 1_281_167  # training images
PART = re.compile(
    r"(?P<begin><!-- measured: (?P<name>.+?) -->)\n.*?(?P<end><!-- end -->)", re.DOTALL
)


# --------------------------------------------------------------------------- the parts


def demo_transcript() -> list[str]:
    found = report("demo-debian-12")
    return [
        *wrapped(
            "Each stage's time includes the start of its program "
            f"({link('demo-debian-12')}; {made_on(found)}):"
        ),
        "",
        "```text",
        *demo.transcript(found, Path("demo-out")).splitlines(),
        "```",
    ]


def beside_others() -> list[str]:
    """What the project is for, in three lines: ours beside what one would use otherwise."""
    resize, beton = report("resize-imagenet-originals"), report("beton-imagenet-originals")
    loader = report("loader-imagenet-originals")["quality 95"]

    def row(what: str, here: Report, usual: str, there: Report, ratio: Report) -> list[str]:
        return [what, images(here), f"{usual}: {images(there)}", times(ratio)]

    rates, unit, other = resize["images/s"], resize_ways.UNIT, resize_ways.TORCHVISION
    rows = [
        row(
            "`prep resize`, one core",
            rates[unit]["1 workers"],
            "torchvision's Resize and CenterCrop on Pillow",
            rates[other]["1 workers"],
            resize["ratios"][f"{unit} / {other}"],
        )
    ]
    rates, theirs = beton["images/s"], bench_beton.THEIRS[2]
    rows.append(
        row(
            "`prep write-beton`, two cores",
            rates[bench_beton.OURS],
            "FFCV's DatasetWriter",
            rates[theirs],
            beton["ratios"][f"{bench_beton.OURS} / {theirs}"],
        )
    )
    rates = {way: cores["one core"] for way, cores in loader["images/s"].items()}
    for usual, other in (
        ("torch's DataLoader, PIL and NumPy", ways.PAPER),
        ("the same, with a PCA of every picture, as AlexNet's write-ups do", ways.WRITE_UPS),
    ):
        ratio = loader["ratios"][f"{ways.CPU} / {other}"]["one core"]
        what = "the loader, with the paper's augmentation, one core"
        rows.append(row(what, rates[ways.CPU], usual, rates[other], ratio))
    made: dict[str, list[str]] = {}
    for name in ("resize", "beton", "loader"):
        file = f"{name}-imagenet-originals"
        made.setdefault(made_on(report(file)), []).append(link(file, name))
    return [
        *table(("", "here", "the usual way", "ratio within a round"), rows),
        "",
        *wrapped(
            "Rates are medians over interleaved rounds on ImageNet pictures; a ratio is the median "
            "of those within each round (lowest to highest), not of the two rates. "
            + "; ".join(f"{', '.join(links)}: {where}" for where, links in made.items())
            + "."
        ),
    ]


def stages() -> list[str]:
    """prep's commands with every core, and what that makes for ImageNet."""
    found, sizes = report("prep-imagenet-originals"), report("imagenet-originals")
    rates = found["commands with every core, images/s"]
    each = sizes["prepared bytes, mean"]
    archives = load("imagenet-1k").archives
    originals = next(file.bytes for file in archives if file.bytes and "train" in file.holds)
    disk = f"{each * IMAGENET / 1e9:.0f} GB"
    room = {
        "resize": f"{disk} ({each / 1e3:.1f} KB an image)",
        "stats": "1 MB",
        "write-beton": disk,
        "build": disk,
        "verify": "",
    }
    names = {"build": "`build`, all three in one pass"}
    ratio = times(found["ratios"]["three steps / one pass"])
    return [
        *table(
            ("stage", "on disk, ImageNet-1k's training data", "measured rate", "hence, for those"),
            [
                ["originals", f"{originals / 1e9:.0f} GB", "", ""],
                *(
                    [
                        names.get(name, f"`{name}`"),
                        room[name],
                        images(rates[name]),
                        minutes(IMAGENET, rates[name]["median"]),
                    ]
                    for name in rates
                ),
                ["`train run`, one GPU", "0.5 GB a checkpoint", "not yet measured", ""],
            ],
        ),
        "",
        *wrapped(
            f"Medians of {found['rounds']} rounds, every core at work "
            f"({link('prep-imagenet-originals')}; {found['source']}; {made_on(found)}), "
            f"from the page cache, made durable on the way; {link('imagenet-originals', 'sizes')}. "
            f"The last column is computed from them for {IMAGENET:,} pictures on the same "
            f"cores. The three steps take {ratio} times as long as one pass."
        ),
    ]


def ways_of_resizing() -> list[str]:
    found = report("resize-imagenet-originals")
    ratios = found["ratios"]
    floor = resize_ways.FLOORS[0]
    rows = [
        [way, *(images(cores and cores[f"{count} workers"]) for count in (1, 2))]
        for way, cores in found["images/s"].items()
        if "reused" not in way and cores is not None
    ]
    unit, turbo = resize_ways.UNIT, "prep turbo, in memory"
    tar = resize_ways.TAR_UNIT
    return [
        *table(("what is done to a picture", "one core", "two cores"), rows),
        "",
        *wrapped(
            f"Medians of {found['rounds']} rounds on {found['pictures']:,} ImageNet originals "
            f"({link('resize-imagenet-originals')}; {made_on(found)}). A unit of `prep resize` has "
            f"{times(ratios[f'{unit} / {floor}'])} of the rate of decoding and encoding alone, in "
            f"memory {times(ratios[f'{turbo} / {floor}'])}, with `--layout tar` "
            f"{times(ratios[f'{tar} / {floor}'])}; two workers make "
            f"{times(ratios[f'{unit}, 2 workers / 1'])} of one. A unit writes a JPEG a picture and "
            "waits until all are on the disk (syncfs), then for its rows (fsync); with `--layout "
            'tar`, one file of all its JPEGs (fsync). "File to file" waits for nothing. Backend '
            "pillow decodes a JPEG twice: Pillow says nothing of damage."
        ),
    ]


def full_size() -> list[str]:
    found, folders = report("full-size"), report("full-size-folders")
    beton = report("large-beton")
    before, after = found["images/s until the kill"], found["images/s after it"]
    written, verified = beton["write-beton"], beton["verify"]
    return wrapped(
        f"At full size, with smaller pictures, so that all fits a small disk: {found['train']:,} "
        f"pictures ({found['pictures']}) in archives of archives; `prep resize` was "
        f"killed when half were done and started again: {before['first tenth']:,.0f} images/s in "
        f"the first tenth before the kill, {before['last tenth']:,.0f} in the last, "
        f"{after['first tenth']:,.0f} and {after['last tenth']:,.0f} after it, at most "
        f"{found['peak memory of the parent, MiB']} MiB in the parent process and "
        f"{found['peak private memory of a worker, MiB']} in a worker ({link('full-size')}; "
        f"{made_on(found)}); from class folders of as many files at most "
        f"{folders['peak memory of the parent, MiB']} and "
        f"{folders['peak private memory of a worker, MiB']} MiB "
        f"({link('full-size-folders')}). {beton['samples']:,} JPEGs of "
        f"{beton['mean_bytes'] / 1e3:.0f} KB became a beton of {beton['bytes'] / 1e9:.0f} GB in "
        f"{written['seconds']:.0f} s, which `verify` checked in {verified['seconds']:.0f} s, with "
        f"at most {written['peak memory of the parent, MiB']} MiB in the parent process "
        f"({link('large-beton')}; {made_on(beton)})."
    )


def stats_rate() -> list[str]:
    found = report("stats-imagenet-originals")
    way, floor = "a unit of `prep stats` on the prepared set", "FFCV's imdecode, in memory"
    ratio = found["ratios"][f"{way} / {floor}"]["1 workers"]
    return wrapped(
        f"A unit of `prep stats` measures {images(found['images/s'][way]['1 workers'])} a core, "
        f"{times(ratio)} of the rate of FFCV's imdecode alone ({link('stats-imagenet-originals')}; "
        f"{made_on(found)})."
    )


def kills() -> list[str]:
    """How often commands were killed, and what was fed to prep."""
    rows = [report(f"soak-kills-{name}") for name in ("resize", "stats", "write-beton", "build")]
    times_each = {row["kills"] for row in rows}
    ways = [(f"sig{a}-{b}") for a in ("kill", "term") for b in ("training", "writing")]
    runs = sum(report(f"soak-kills-train-{way}")["times"] for way in ways)
    files = sum(corpus["files"] for corpus in report("hostile")["corpora"].values())
    names = ", ".join(link(f"soak-kills-{name}", name) for name in ("resize", "stats"))
    names += (
        f", {link('soak-kills-write-beton', 'write-beton')}, {link('soak-kills-build', 'build')}"
    )
    return wrapped(
        f"Tried: {', '.join(map(str, times_each))} kills of each of {names} and {runs} of `train "
        f"run` at random moments, each carried on to the bytes of an undisturbed run; {files:,} "
        f"test pictures of three image libraries, each taken or rejected with its reason "
        f"({link('hostile')})."
    )


PARTS: dict[str, Callable[[], list[str]]] = {
    "demo": demo_transcript,
    "beside others": beside_others,
    "stages": stages,
    "kills": kills,
    "resize": ways_of_resizing,
    "stats": stats_rate,
    "full size": full_size,
    "loader": measured_train.loader_ways,
    "loader's parts": measured_train.loader_parts,
    "large loader": measured_train.large_loader,
    "trained": measured_train.trained,
    "step": measured_train.step,
    "same losses": measured_train.same_losses,
    "ablated": measured_train.ablated,
}


# --------------------------------------------------------------------------- the pages


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(path: Path) -> str:
    """The page's text with every part as the results have it. Raises KeyError: no such part."""
    folder = os.path.relpath(ROOT / RESULTS, path.parent)

    def part(found: re.Match[str]) -> str:
        lines = PARTS[found["name"]]()
        text = "\n".join(lines).replace(f"]({RESULTS}/", f"]({folder}/")
        return f"{found['begin']}\n{text}\n{found['end']}"

    return PART.sub(part, path.read_text(encoding="utf-8"))


def main() -> None:
    for path in pages():
        path.write_text(filled(path), encoding="utf-8")
    curves.save()


if __name__ == "__main__":
    main()
