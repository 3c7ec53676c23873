#!/usr/bin/env bash
# Builds images where there is no Docker daemon: buildah, as root, on a base that debootstrap makes.
#
#   docker/build.sh prep train test
#
# makes localhost/alexnet-prep and so on. BUILDAH_ARGUMENTS are further arguments of `buildah build`,
# such as `--volume /usr/local/share/ca-certificates:/usr/local/share/ca-certificates:ro` where a proxy
# has a certificate of its own. STORAGE_DRIVER: vfs, which works everywhere, or overlay, which does not copy
# every layer in full.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=${STORAGE_DRIVER:-vfs}
base=localhost/debian-bookworm

if [ $# = 0 ]; then
    echo "docker/build.sh: name what to build: prep, train or test" >&2
    exit 2
fi
for needed in buildah debootstrap; do
    if ! command -v "$needed" >/dev/null; then
        echo "docker/build.sh: $needed is missing; apt-get install buildah debootstrap" >&2
        exit 1
    fi
done

if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase bookworm "$root" >&2
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root" /
    buildah config --cmd /bin/bash "$container"
    buildah commit --quiet --rm "$container" "$base"
fi
for target in "$@"; do
    # shellcheck disable=SC2086 # several words are several arguments
    buildah build --format docker ${BUILDAH_ARGUMENTS:-} --build-arg "BASE=$base" --file docker/Dockerfile \
        --target "$target" --tag "localhost/alexnet-$target" .
done
