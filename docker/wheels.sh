#!/usr/bin/env bash
# Fill wheelhouse/<device> with the wheels for the image: torch and requirements/locked/service.txt.
#
#   docker/wheels.sh cpu|gpu
#
# The wheels are for the image's Linux and Python 3.11 (Debian 12), on any host. cpu downloads the CPU build of torch from
# PyTorch's own index; it has a tenth of the size. gpu downloads the default build, which contains CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."

device=${1:-}
python=${PYTHON:-.venv/bin/python}
cpu_index=https://download.pytorch.org/whl/cpu

if [[ $device != cpu && $device != gpu ]]; then
    echo "error: usage: $0 cpu|gpu" >&2
    exit 2
fi
case $(uname -m) in
arm64 | aarch64) machine=aarch64 ;;
x86_64 | amd64) machine=x86_64 ;;
*)
    echo "error: torch has no wheels for $(uname -m)" >&2
    exit 1
    ;;
esac

folder=wheelhouse/$device
digest=$(cat requirements/locked/{torch,cuda,service}.txt "$0" | "$python" -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ -f "$folder/.complete" ] && [ "$(cat "$folder/.complete")" = "$digest $machine" ]; then
    exit 0
fi

rm -rf "$folder"
mkdir -p "$folder"
download() {
    local platforms=()
    # Debian 12 has glibc 2.36. pip accepts wheels for older versions only if they are named; NCCL's is for 2.18.
    for minor in $(seq 28 -1 5); do platforms+=(--platform "manylinux_2_${minor}_$machine"); done
    for tag in 2014 2010 1; do platforms+=(--platform "manylinux${tag}_$machine"); done
    "$python" -m pip download --quiet --disable-pip-version-check --dest "$folder" --only-binary=:all: \
        --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none "${platforms[@]}" --platform any "$@"
}

echo "Filling $folder (once; a few hundred megabytes, gpu a few gigabytes)"
# Torch separately, because the index of CPU builds also has old versions of other packages, and because with hashes pip
# would prefer the build with CUDA. Its hash is compared once it is here.
builds=()
if [ "$device" = cpu ]; then builds=(--extra-index-url "$cpu_index"); fi
download --no-deps "${builds[@]}" "$(grep -o '^torch==[^ ]*' requirements/locked/torch.txt)"
download --no-deps --require-hashes --no-index --find-links "$folder" -r requirements/locked/torch.txt
locked=(-r requirements/locked/service.txt)
if [ "$device" = gpu ]; then locked+=(-r requirements/locked/cuda.txt); fi
download --no-deps --require-hashes "${locked[@]}"
if [ "$device" = gpu ] && compgen -G "$folder/torch-*+cpu-*.whl" >/dev/null; then
    echo "error: pip chose a build of torch without CUDA; remove the index of the CPU builds from pip config list" >&2
    exit 1
fi
echo "$digest $machine" >"$folder/.complete"
