#!/usr/bin/env bash
# Makes .venv ready: system packages through apt where they are missing, uv, a locked install.
# Does nothing when the lock, pyproject.toml and this file are those of the last time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stamp=.venv/set-up
wanted=$(cat setup.sh pyproject.toml requirements.lock | sha256sum)
[ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && exit 0

UV_VERSION=0.13.8
python=""
for name in python3.13 python3.12 python3.11 python3; do
    if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
        python=$name
        break
    fi
done

# What FFCV's extension is built with, and what a virtual environment needs.
missing=()
lacks() { missing+=("$1"); }
[ -n "$python" ] || lacks python3
command -v pkg-config >/dev/null || lacks pkg-config
command -v g++ >/dev/null || lacks g++
pkg-config --exists opencv4 2>/dev/null || lacks libopencv-dev
pkg-config --exists libturbojpeg 2>/dev/null || lacks libturbojpeg0-dev
if [ -n "$python" ]; then
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$include/Python.h" ] || lacks python3-dev
    "$python" -c 'import ensurepip' 2>/dev/null || lacks python3-venv
else
    missing+=(python3-dev python3-venv)
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
    python=${python:-python3}
fi
if ! "$python" -c 'import sys; sys.exit(not sys.version_info >= (3, 11))'; then
    echo "setup: $("$python" --version) is too old, 3.11 is needed; install python3.11," \
        "python3.11-dev and python3.11-venv, then run this again" >&2
    exit 1
fi

echo "setup: installing the locked packages into .venv"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --require-hashes -r requirements.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .
echo "$wanted" >"$stamp"
