"""The measured parts of README.md and docs/*.md, written from benchmarks/results/.

    python -m benchmarks.measured

A part stands between `<!-- measured: NAME -->` and `<!-- end -->`; PARTS says which function writes
it. A figure that is wanted in a text and lies in a results file belongs into such a part.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import bench_beton, bench_resize, demo
from benchmarks import loader_ways as ways
from prep.manifest import load

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "benchmarks/results"
IMAGENET = 1_281_167  # training images
WIDTH = 100
PART = re.compile(
    r"(?P<begin><!-- measured: (?P<name>.+?) -->)\n.*?(?P<end><!-- end -->)", re.DOTALL
)
LOADER = (
    ("FFCV's `imdecode` alone, into one buffer in memory", ways.DECODE),
    ("`--feed gpu`, the loader's part: read, checked, decoded to uint8", ways.GPU),
    ("`--feed cpu`: and cropped, mirrored, less the mean, with noise, float32", ways.CPU),
    ("FFCV's Loader, decoding alone", ways.LOADER),
    ("FFCV's Loader, crop, flip, `NormalizeImage` (no mean image, no noise)", ways.NORMALIZE),
    ("torch's DataLoader, PIL and NumPy, the same augmentation", ways.PAPER),
    ("the same with a PCA of each picture, as write-ups have it", ways.WRITE_UPS),
)
Report = dict[str, Any]


def report(name: str) -> Report:
    found: Report = json.loads((ROOT / RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


# --------------------------------------------------------------------------- words and numbers


def images(rate: Report | None) -> str:
    return "" if rate is None else f"{rate['median']:,.0f} images/s"


def times(ratio: Report) -> str:
    """The median, and how far rounds were apart."""
    return f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"


def minutes(samples: int, rate: float) -> str:
    return f"{samples / rate / 60:.0f} min"


def made_on(found: Report) -> str:
    machine = found["machine"]
    cpu = re.sub(r"\(R\)| Processor", "", machine["cpu"])
    return f"{cpu}, {machine['cores']} cores, {machine['date']}"


def link(name: str, text: str = "data") -> str:
    return f"[{text}]({RESULTS}/{name}.json)"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return [f"| {' | '.join(cells)} |" for cells in lines]


def wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


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

    rates, unit, other = resize["images/s"], bench_resize.UNIT, bench_resize.TORCHVISION
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


def resize_ways() -> list[str]:
    found = report("resize-imagenet-originals")
    ratios = found["ratios"]
    floor = bench_resize.FLOORS[0]
    rows = [
        [way, *(images(cores and cores[f"{count} workers"]) for count in (1, 2))]
        for way, cores in found["images/s"].items()
        if "reused" not in way and cores is not None
    ]
    unit, turbo = bench_resize.UNIT, "prep turbo, in memory"
    return [
        *table(("what is done to a picture", "one core", "two cores"), rows),
        "",
        *wrapped(
            f"Medians of {found['rounds']} rounds on {found['pictures']:,} ImageNet originals "
            f"({link('resize-imagenet-originals')}; {made_on(found)}). A unit of `prep resize` has "
            f"{times(ratios[f'{unit} / {floor}'])} of the rate of decoding and encoding alone, in "
            f"memory {times(ratios[f'{turbo} / {floor}'])}; two workers make "
            f"{times(ratios[f'{unit}, 2 workers / 1'])} of one. A unit writes a JPEG a picture, "
            'then waits for the disk once (syncfs), then for its rows (fsync); "file to file" '
            "waits for nothing. Backend pillow decodes a JPEG twice: Pillow says nothing of damage."
        ),
    ]


def full_size() -> list[str]:
    found, beton = report("full-size"), report("large-beton")
    before, after = found["images/s until the kill"], found["images/s after it"]
    written, verified = beton["write-beton"], beton["verify"]
    return wrapped(
        f"At full size, with smaller pictures, so that all fits a small disk: {found['train']:,} "
        f"pictures ({found['pictures']}) in {found['units']:,} class tars; `prep resize` was "
        f"killed when half were done and started again: {before['first tenth']:,.0f} images/s in "
        f"the first tenth before the kill, {before['last tenth']:,.0f} in the last, "
        f"{after['first tenth']:,.0f} and {after['last tenth']:,.0f} after it, at most "
        f"{found['peak memory of the parent, MiB']} MiB in the parent process and "
        f"{found['peak private memory of a worker, MiB']} in a worker ({link('full-size')}; "
        f"{made_on(found)}). {beton['samples']:,} JPEGs of {beton['mean_bytes'] / 1e3:.0f} KB "
        f"became a beton of {beton['bytes'] / 1e9:.0f} GB in {written['seconds']:.0f} s, which "
        f"`verify` checked in {verified['seconds']:.0f} s, with at most "
        f"{written['peak memory of the parent, MiB']} MiB in the parent process "
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


def loader_ways() -> list[str]:
    found = report("loader-imagenet-originals")
    kinds = ("quality 90", "quality 95", "raw")

    def cell(kind: str, way: str) -> str:
        cores = found[kind]["images/s"].get(way)
        return images(cores and cores["one core"])

    def ratio(text: str, kind: str, cores: str | None = "one core") -> str:
        value = found[kind]["ratios"][text]
        return times(value if cores is None else value[cores])

    jpeg = kinds[:2]
    gpu, cpu = (
        " and ".join(ratio(f"{way} / {ways.DECODE}", kind) for kind in jpeg)
        for way in (ways.GPU, ways.CPU)
    )
    two = " and ".join(ratio(f"{ways.CPU}, two cores / one core", kind, None) for kind in jpeg)
    two_gpu = " and ".join(ratio(f"{ways.GPU}, two cores / one core", kind, None) for kind in jpeg)
    wanted = [
        found["targets"][text]
        for text in (
            f"{ways.GPU} / {ways.DECODE}",
            f"{ways.CPU} / {ways.DECODE}",
            f"{ways.CPU}, two cores / one core",
        )
    ]
    two_floor = " and ".join(
        ratio(f"{ways.DECODE}, two cores / one core", kind, None) for kind in jpeg
    )
    return [
        *table(
            ("a core, ImageNet originals at 256, from the page cache", *kinds),
            ([text, *(cell(kind, way) for kind in kinds)] for text, way in LOADER),
        ),
        "",
        *wrapped(
            f"Medians of {found['rounds']} rounds, interleaved "
            f"({link('loader-imagenet-originals')}, with two cores, and what each part "
            f"costs; {made_on(found)}). Of the rate of decoding alone `gpu` keeps {gpu} at the two "
            f"qualities, `cpu` {cpu}. Two cores make {two_gpu} of one with `gpu`, {two} with "
            f"`cpu`; of decoding alone, {two_floor}. Wanted were {wanted[0]}, "
            f"{wanted[1]} and {wanted[2]}."
        ),
    ]


def large_loader() -> list[str]:
    found = report("large-loader")
    random, quasi = found["random"], found["quasi-random"]
    left = found["bytes of memory left for programs and the page cache"]
    memory = max(way["memory of the process at its peak, MiB"] for way in (random, quasi))
    return wrapped(
        f"A beton larger than memory, raw, {found['bytes'] / 1e9:.1f} GB with {left / 1e9:.1f} GB "
        f"left for programs and the page cache: a whole epoch of `random` at "
        f"{random['images/s']:,} images/s ({random['MB/s']:,} MB/s), of `quasi-random` at "
        f"{quasi['images/s']:,}, each reading the file once, in {memory} MiB "
        f"({link('large-loader')}; {made_on(found)}). Disks that are slow at reading here and "
        "there, which `quasi-random` is for, are not measured."
    )


PARTS: dict[str, Callable[[], list[str]]] = {
    "demo": demo_transcript,
    "beside others": beside_others,
    "stages": stages,
    "kills": kills,
    "resize": resize_ways,
    "stats": stats_rate,
    "full size": full_size,
    "loader": loader_ways,
    "large loader": large_loader,
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


if __name__ == "__main__":
    main()
