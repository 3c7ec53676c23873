"""The measured parts that are of `train`: its loader, what runs came to, what choices earn."""

from __future__ import annotations

import json
from typing import Any

from benchmarks import loader_ways as ways
from benchmarks.ablate import AS_IT_IS
from benchmarks.bench_step import WRITE_UP
from benchmarks.wording import (
    RESULTS,
    ROOT,
    Report,
    images,
    link,
    made_on,
    report,
    table,
    times,
    wrapped,
)
from prep.program import counted
from train import bench

LOADER = (
    ("FFCV's `imdecode` alone, into one buffer in memory", ways.DECODE),
    ("`--feed gpu`, the loader's part: read, checked, decoded to uint8", ways.GPU),
    ("`--feed cpu`: and cropped, mirrored, less the mean, with noise, float32", ways.CPU),
    ("FFCV's Loader, decoding alone", ways.LOADER),
    ("FFCV's Loader, crop, flip, `NormalizeImage` (no mean image, no noise)", ways.NORMALIZE),
    ("torch's DataLoader, PIL and NumPy, the same augmentation", ways.PAPER),
    ("the same with a PCA of each picture, as write-ups have it", ways.WRITE_UPS),
)
PARTS_OF_A_SAMPLE = (
    ways.READ,
    ways.CRC32,
    ways.ONE_BUFFER,
    ways.FIVE_BATCHES,
    ways.SAMPLES,
    ways.AUGMENT,
)


# --------------------------------------------------------------------------- the loader


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


def loader_parts() -> list[str]:
    """Where the time of the loader goes, a sample on one core."""
    found, kinds = report("loader-imagenet-originals"), ("quality 90", "quality 95")
    costs = {kind: found[kind]["a sample on one core, microseconds"] for kind in kinds}

    def us(kind: str, way: str) -> str:
        return f"{1e6 / found[kind]['images/s'][way]['one core']['median']:.0f} us"

    rows = [
        [part, *(f"{costs[kind][part]['median']:.1f} us" for kind in kinds)]
        for part in PARTS_OF_A_SAMPLE
    ]
    for text, way in (("all of `--feed gpu`", ways.GPU), ("all of `--feed cpu`", ways.CPU)):
        rows.append([text, *(us(kind, way) for kind in kinds)])
    return table(("a sample, one core", *kinds), rows)


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


def step() -> list[str]:
    found = report("step-cpu")
    head = ("precision", "network", *bench.PARTS, "both of the slower", WRITE_UP, "step / it")
    rows = [
        [row["precision"], row["network"]]
        + [f"{row['images/s'][part]['median']:,.0f}" for part in bench.PARTS]
        + [f"{row['both of the slower']:.2f}", f"{row['images/s'][WRITE_UP]['median']:,.0f}"]
        + [times(row["step / a write-up's"])]
        for row in found["rows"]
    ]
    return [
        *table(head, rows),
        "",
        *wrapped(
            f"Images/s of a batch of {found['rows'][0]['batch']} of the recipe "
            f"`{found['recipe'][0]}`, {', '.join(found['recipe'][1:])}, on a CPU; a write-up's "
            f"step is eager float32 ({link('step-cpu')}; {made_on(found)})."
        ),
    ]


def same_losses() -> list[str]:
    found = report("soak-compiled-cpu")
    plain = found["mean loss of 10 steps, plain"]
    apart = "; ".join(
        f"{way} {beside['largest difference']:.2g}" for way, beside in found["beside it"].items()
    )
    return wrapped(
        f"{found['steps']} steps of the recipe `paper` ({', '.join(found['recipe'][1:])}) in which "
        f"the loss goes from {plain[0]:.2f} to {plain[-1]:.2f}, computed plainly (eager, float32, "
        "augmented by the loader) and in the fast ways. The mean loss of ten steps differs at most "
        f"by: {apart} ({link('soak-compiled-cpu')}; {made_on(found)}; on a GPU: not "
        "yet measured)."
    )


# --------------------------------------------------------------------------- runs


def trained() -> list[str]:
    """What runs on real pictures came to, by results as benchmarks.trained writes them."""
    rows, words = [], []
    for path in sorted((ROOT / RESULTS).glob("train-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        rows += [_trained(name, run) for name, run in found["runs"].items()]
        note = f"; {found['note']}" if "note" in found else ""
        words.append(f"{link(path.stem)}: {found['data']} ({made_on(found)}{note}).")
    head = ("run", "changed", "parameters", "pictures", "epochs", "loss", "top-1 accuracy")
    return [*table(head, rows), "", *wrapped(" ".join(words))]


def _trained(name: str, run: dict[str, Any]) -> list[str]:
    last = run["epochs"][-1]
    if "test" in run:
        views, judged = max(run["test"]["views"].items(), key=lambda item: int(item[0]))
        accuracy = (
            f"{1 - judged['top1_error']:.1%} of test pictures, by {counted(int(views), 'view')}"
        )
    else:
        accuracy = f"{1 - last['val_top1_error']:.1%} of validation pictures"
    changed = ", ".join(f"{key}={value}" for key, value in run["changed"].items()) or "nothing"
    return [
        f"{name}: recipe `{run['recipe']}`",
        changed,
        f"{run['parameters']:,}",
        f"{run['samples']:,}",
        f"{last['epoch']} of {run['of epochs']}, {run['steps']:,} steps",
        f"{run['epochs'][0]['loss']:.3f} to {last['loss']:.3f}",
        accuracy,
    ]


# --------------------------------------------------------------------------- choices of a recipe


def ablated() -> list[str]:
    """What each choice of the recipe `fast` earns, by results as benchmarks.ablate writes them."""
    return [*_ablated("ablate-fast-20"), "", *_ablated("ablate-fast-200")]


def _ablated(name: str) -> list[str]:
    found = report(name)
    head = ("`fast`, and one change", "top-1 error", "top-5 error", "training loss")
    rows = [
        [f"`{change}`" if change != AS_IT_IS else change]
        + [_over_seeds(row[figure], found["seeds"]) for figure in ("top-1 error", "top-5 error")]
        + [f"{row['training loss']['mean']:.3f}"]
        for change, row in found["changes"].items()
    ]
    return [
        *table(head, rows),
        "",
        *wrapped(
            f"Validation after the last epoch, {counted(found['seeds'], 'seed')} ({link(name)}; "
            f"{found['beton']}; all with {', '.join(found['recipe'][1:])}; {made_on(found)})."
        ),
    ]


def _over_seeds(error: Report, seeds: int) -> str:
    spread = f" ({error['lowest']:.1%} to {error['highest']:.1%})" if seeds > 1 else ""
    return f"{error['mean']:.1%}{spread}"
