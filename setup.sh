#!/usr/bin/env bash
# Makes .venv ready: system packages through apt where they are missing, uv, a locked install.
# Does nothing when the lock, pyproject.toml and this file are those of the last time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stamp=.venv/set-up
wanted=$(cat setup.sh pyproject.toml requirements.lock | sha256sum)
[ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && exit 0

find_python() {
    for name in python3.13 python3.12 python3.11 python3; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
}
python=$(find_python)

# What FFCV's extension is built with, and what a virtual environment needs.
missing=()
lacks() { missing+=("$1"); }
command -v pkg-config >/dev/null || lacks pkg-config
command -v g++ >/dev/null || lacks g++
pkg-config --exists opencv4 2>/dev/null || lacks libopencv-dev
pkg-config --exists libturbojpeg 2>/dev/null || lacks libturbojpeg0-dev
if [ -n "$python" ]; then
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$include/Python.h" ] || lacks "$version-dev"
    "$python" -c 'import ensurepip' 2>/dev/null || lacks "$version-venv"
elif command -v python3 >/dev/null; then # Ubuntu 22.04: 3.10, and 3.11 beside it
    missing+=(python3.11 python3.11-dev python3.11-venv)
else
    missing+=(python3 python3-dev python3-venv)
fi

if [ ${#missing[@]} -gt 0 ]; then
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    install="${root[*]} apt-get update && ${root[*]} apt-get install -y --no-install-recommends ${missing[*]}"
    if ! command -v apt-get >/dev/null; then
        echo "setup: missing ${missing[*]} (Debian's names); install them, then run this again" >&2
        exit 1
    fi
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
        echo "setup: missing ${missing[*]}; install them with: $install" >&2
        exit 1
    fi
    echo "setup: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    bash -c "$install" >&2
    python=$(find_python)
fi
if [ -z "$python" ]; then
    echo "setup: Python 3.11 to 3.14 is needed, $(python3 --version) is here; install python3.11," \
        "python3.11-dev and python3.11-venv, then run this again" >&2
    exit 1
fi

echo "setup: installing the locked packages into .venv"
[ -x .venv/bin/python ] || "$python" -m venv .venv
awk '/^uv==/ {wanted = 1} wanted {print} wanted && !/\\$/ {exit}' requirements.lock >.venv/uv.lock
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
# Compiled once here: where PYTHONDONTWRITEBYTECODE is set, each start would compile numba and torch.
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --require-hashes \
    --compile-bytecode -r requirements.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .
echo "$wanted" >"$stamp"
echo "setup: done; \`. .venv/bin/activate\` puts prep and train on the path"
