#!/usr/bin/env bash
# FFCV as one wheel for every Python from 3.8 on, with the libraries it needs inside: dist/ffcv-*.whl.
#
# FFCV's extension is a C library behind an empty Python module, called through ctypes. So it builds
# once against Python's stable ABI; it calls OpenCV's core and imgproc and libturbojpeg only, which
# auditwheel puts into the wheel. Machines that install it need no compiler and no OpenCV packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$PWD/.venv/bin
out=$PWD/dist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

awk '/^ffcv==/ {wanted = 1} wanted {print} wanted && !/\\$/ {exit}' requirements.lock >"$work/ffcv.lock"
export CFLAGS=-DPy_LIMITED_API=0x03080000 LDFLAGS=-Wl,--as-needed,--strip-debug # which names this folder
export SOURCE_DATE_EPOCH=315532800 # 1980, the first year of zip files: the same wheel every time
"$bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-binary ffcv \
    --no-build-isolation --no-cache-dir --require-hashes --requirement "$work/ffcv.lock" --wheel-dir "$work/built"

"$bin/wheel" unpack --dest "$work" "$work"/built/ffcv-*.whl
unpacked=$(echo "$work"/ffcv-*/)
library=$(find "$unpacked" -name '_libffcv.cpython-*.so')
mv "$library" "$(dirname "$library")/_libffcv.abi3.so"
mkdir "$work/packed"
"$bin/wheel" pack --dest-dir "$work/packed" "$unpacked"
"$bin/wheel" tags --remove --python-tag cp38 --abi-tag abi3 "$work"/packed/ffcv-*.whl

# OpenCV asks libGLX for the current OpenGL context, and that brings libX11, which auditwheel leaves to
# the machine. There is none where nothing is drawn: this says so in libGLX's place.
mkdir "$work/no-screen"
cc -shared -fPIC -Wl,-soname,libGLX.so.0,--strip-debug -o "$work/no-screen/libGLX.so.0" -x c - <<'C'
void *glXGetCurrentContext(void) { return 0; }
void *glXGetCurrentDisplay(void) { return 0; }
void *glXGetProcAddressARB(const unsigned char *name) { (void)name; return 0; }
C

mkdir -p "$out"
LD_LIBRARY_PATH="$work/no-screen" PATH="$bin:$PATH" "$bin/auditwheel" repair --wheel-dir "$out" "$work"/packed/ffcv-*.whl
ls -l "$out"/ffcv-*.whl
