#!/usr/bin/env bash
# Runs drawn pictures through the images: prepared, once more by a Dask cluster, trained on, judged.
#
#   docker/demo.sh FOLDER [EPOCHS]
#
# By docker or, where there is none, as root by buildah with the images that docker/build.sh makes, and
# the STORAGE_DRIVER that it had.
# FOLDER, new or empty, is what the containers see as /data; the cluster's log lies there too.
# EPOCHS: of the recipe demo, default 12.
set -euo pipefail

if [ $# = 0 ] || [ -n "$(ls -A "$1" 2>/dev/null)" ]; then
    echo "docker/demo.sh: give a folder that is new or empty" >&2
    exit 2
fi
mkdir -p "$1"
data=$(cd "$1" && pwd)
epochs=${2:-12}
if [ "$(id -u)" = 0 ]; then
    chown 1000:1000 "$data"
    user=1000:1000
else
    user=$(id -u):$(id -g)
fi

if docker info >/dev/null 2>&1; then
    image() { # IMAGE PROGRAM ARGUMENT ...
        docker run --rm --network host --volume "$data:/data" --user "$user" --entrypoint "$2" \
            "alexnet-$1" "${@:3}"
    }
else
    export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=${STORAGE_DRIVER:-vfs}
    prep=$(buildah from localhost/alexnet-prep)
    train=$(buildah from localhost/alexnet-train)
    image() {
        buildah run --volume "$data:/data" --user "$user" "${!1}" -- "${@:2}"
    }
fi
set -m # jobs are process groups: a signal to one reaches what runs in it
cluster=()
ended() {
    for process in "${cluster[@]}"; do kill -- "-$process" 2>/dev/null || true; done
    wait
    if [ -n "${prep:-}" ]; then buildah rm "$prep" "$train" >/dev/null; fi
}
trap ended EXIT

set -x
image prep prep sample src --per-class 40 --val-per-class 10
image prep prep resize src prepared
image prep prep stats prepared/train
image prep prep write-beton prepared/train train.beton
image prep prep write-beton prepared/val val.beton
image prep prep verify train.beton

image prep dask scheduler --no-dashboard --port 8786 2>>"$data/cluster.log" &
cluster+=($!)
for _ in 1 2; do
    image prep dask worker tcp://127.0.0.1:8786 --nworkers 1 --nthreads 1 --no-dashboard \
        --local-directory /tmp 2>>"$data/cluster.log" &
    cluster+=($!)
done
image prep prep resize src by-dask --dask tcp://127.0.0.1:8786
diff --recursive "$data/prepared/train" "$data/by-dask/train"

image train train run --beton train.beton --recipe demo --set "epochs=$epochs" --out run
image train train eval run --beton val.beton --views 10
image train train classify run src/val/n90000001
