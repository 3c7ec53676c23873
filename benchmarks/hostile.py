"""What becomes of other programs' test pictures: taken rightly, or rejected with a reason.

    python -m benchmarks.hostile FOLDER... [--out benchmarks/results/hostile.json]

A folder is a public corpus of odd, broken and malicious files, such as Pillow's Tests/images,
libjpeg-turbo's testimages and image-rs/jpeg-decoder's tests. Every file in it goes through
prep.images.prepare with the default settings, in a process of its own kind that is killed after
SECONDS; what its private memory grew to is noted. Every accepted file that is not a plain baseline
JPEG is compared with ImageMagick's rendering (`convert`; Pillow's where that has none), after the
same resize. The result names what differs by more than the tolerance, and what a person who looked
at both renderings saw (LOOKED_AT).
"""

from __future__ import annotations

import argparse
import collections
import io
import multiprocessing
import re
import subprocess
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import machine
from benchmarks.report import tell
from prep.images import Pixels, RejectedImageError, Settings, prepare

SECONDS = 30
MEAN_TOLERANCE, MAX_TOLERANCE = 1.0, 16  # grey levels, of 256x256x3 numbers
SETTINGS = Settings()

# What a person saw who looked at both renderings of what differs.
CHROMA = "both right: libavif and ImageMagick enlarge the colours differently"
INVERTED = "ours right: ImageMagick 6 shows 2 and 4 bits with 0 for white as a negative"
CANVAS = "both right: ours is the whole canvas, ImageMagick's the first frame's part of it"
AS_RGB = "ours right: ImageMagick takes YCbCr for RGB"
LOOKED_AT = {
    **dict.fromkeys(
        [
            f"Tests/images/avif/{name}.avif"
            for name in (
                "hopper-missing-pixi",
                "hopper",
                "icc_profile",
                "icc_profile_none",
                "rot0mir1",
                "rot1mir1",
                "rot2mir0",
            )
        ],
        CHROMA,
    ),
    **{
        f"Tests/images/tiff_gray_2_4_bpp/hopper{bits}.tif": INVERTED
        for bits in ("2I", "2IR", "4I", "4IR")
    },
    "Tests/images/avif/transparency.avif": "ours right: white shows through",
    "Tests/images/bmp/b/badrle.bmp": "damaged: what is missing is anybody's guess",
    "Tests/images/bmp/b/pal8badindex.bmp": "damaged: colours that its palette does not have",
    "Tests/images/bmp/q/pal8os2v2.bmp": "ours right: ImageMagick 6 reads the palette wrongly",
    "Tests/images/bmp/q/rgb32fakealpha.bmp": "ours right: the fourth byte is no alpha there",
    "Tests/images/clipboard.dib": "ours right: the fourth byte is no alpha there",
    "Tests/images/crash-74d2a78403a5a59db1fb0a2b8735ac068a75f6e3.tif": "damaged fax; both legible",
    "Tests/images/dispose_bgnd_transparency.gif": CANVAS,
    "Tests/images/first_frame_transparency.gif": CANVAS,
    "Tests/images/hopper.Lab.tif": "both right: other rounding from CIELAB",
    "Tests/images/lab-red.tif": "both right: other rounding from CIELAB",
    "Tests/images/old-style-jpeg-compression-no-samplesperpixel.tif": AS_RGB,
    "Tests/images/old-style-jpeg-compression.tif": AS_RGB,
    "Tests/images/pil123p.png": "both right: ImageMagick honours the gamma",
    "Tests/images/pil123rgba.png": "both right: ImageMagick honours the gamma",
    "Tests/images/tiff_tiled_cmyk_jpeg.tif": "ours right: red letters; ImageMagick's is white",
}

Answer = tuple[str, str, Pixels | None, int]  # "accepted" or "rejected", kind or reason, MiB


# --------------------------------------------------------------------------- the killable process


def serve(questions: Connection) -> None:
    """Answers until there are no more questions, or it is killed."""
    prepare(_grey(), SETTINGS)  # the kernel's memory is not the first file's
    while True:
        try:
            data = questions.recv_bytes()
        except EOFError:
            return
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _memory("RssAnon")
        verdict, what, pixels = "rejected", "", None
        try:
            done = prepare(data, SETTINGS)
            verdict, what, pixels = "accepted", done.kind, done.pixels
        except RejectedImageError as error:
            what = str(error)
        grown = _memory("VmHWM") - _memory("RssFile") - _memory("RssShmem") - before
        questions.send((verdict, what, pixels, grown >> 10))


def _grey() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (500, 375), "grey").save(out, "JPEG")
    return out.getvalue()


def _memory(name: str) -> int:
    """Of this process, KiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{name}:\s+(\d+)", status)[0])


class Decoder:
    """A process that answers, started again when it had to be killed or died."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, data: bytes) -> Answer:
        try:
            self._pipe.send_bytes(data)
            if self._pipe.poll(SECONDS):
                answer: Answer = self._pipe.recv()
                return answer
            reason = f"no answer in {SECONDS} s"
        except (EOFError, OSError):
            reason = "the process died"
        self._process.kill()
        self._process.join()
        self._start()
        return "failed", reason, None, 0


# --------------------------------------------------------------------------- the other renderings


def reference(path: Path, data: bytes, kind: str) -> tuple[str, Pixels] | None:
    """Whose, and its pixels after the same resize."""
    upright = ["-auto-orient"] if kind.startswith("TIFF") else []  # as Pillow does
    over_white = ["-background", "white", "-alpha", "remove", "-alpha", "off"]
    command = ["convert", f"{path}[0]", *upright, *over_white]
    command += ["-colorspace", "sRGB", "-type", "TrueColor", "-depth", "8", "PPM:-"]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        if ended.stdout:
            return "ImageMagick", prepare(ended.stdout, SETTINGS).pixels
    except (subprocess.TimeoutExpired, RejectedImageError):
        pass
    try:
        with Image.open(io.BytesIO(data)) as image:
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
        rgb = io.BytesIO()
        white.convert("RGB").save(rgb, "PPM")
    except Exception:  # Pillow's exceptions are of any kind
        return None
    return "Pillow", prepare(rgb.getvalue(), SETTINGS).pixels


def is_plain(data: bytes, kind: str) -> bool:
    """A baseline JPEG, YCbCr or grey."""
    return kind in ("JPEG YCbCr", "JPEG Gray") and b"\xff\xc0" in data


def without_numbers(reason: str) -> str:
    return re.sub(r"0x[0-9a-f]+|\d+(,\d{3})*", "N", reason)


def examine(folder: Path, decoder: Decoder) -> dict[str, Any]:
    accepted: collections.Counter[str] = collections.Counter()
    rejected: collections.Counter[str] = collections.Counter()
    failed, differing, compared, without = [], [], collections.Counter[str](), []
    largest, largest_name = 0, ""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        data = path.read_bytes()
        verdict, what, pixels, mebibytes = decoder.ask(data)
        if mebibytes > largest:
            largest, largest_name = mebibytes, name
        if verdict == "failed":
            failed.append({"file": name, "reason": what})
        elif pixels is None:
            rejected[without_numbers(what)] += 1
        else:
            accepted[what] += 1
            if is_plain(data, what):
                continue
            other = reference(path, data, what)
            if other is None:
                without.append({"file": name, "kind": what})
                continue
            compared[other[0]] += 1
            difference = np.abs(pixels.astype(int) - other[1])
            if difference.mean() > MEAN_TOLERANCE or difference.max() > MAX_TOLERANCE:
                differing.append(
                    {
                        "file": name,
                        "kind": what,
                        "from": other[0],
                        "mean": round(float(difference.mean()), 2),
                        "max": int(difference.max()),
                        "looked at": LOOKED_AT.get(name, "not yet"),
                    }
                )
    return {
        "files": sum(accepted.values()) + sum(rejected.values()) + len(failed),
        "accepted": sum(accepted.values()),
        "accepted by kind": dict(accepted.most_common()),
        "rejected": sum(rejected.values()),
        "rejected by reason": dict(rejected.most_common()),
        "killed or died": failed,
        "odd ones compared with": dict(compared),
        "odd ones that neither other program renders": without,
        "differing": differing,
        "largest growth of private memory, MiB": largest,
        "of": largest_name,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    decoder = Decoder()
    version = subprocess.run(["convert", "-version"], capture_output=True, text=True, check=True)
    report = {
        "machine": machine(),
        "imagemagick": version.stdout.split()[2],
        "settings": "the default ones",
        "tolerance, grey levels": {"mean": MEAN_TOLERANCE, "max": MAX_TOLERANCE},
        "corpora": {folder.name: examine(folder, decoder) for folder in arguments.folders},
    }
    tell(report, arguments.out)


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
