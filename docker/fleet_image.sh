#!/usr/bin/env bash
# Build the images of a fleet: one version of each model, which has passed its golden examples inside the image, and the
# edge. `make fleet-image` runs it after `make archive` and `make wheels`.
#
#   VERSION=1.1 MODEL=fashion_mlp DEVICE=cpu REGISTRY=registry.example docker/fleet_image.sh
#
# Without MODEL every model has this version. Without REGISTRY the images stay on this machine, with a tag from their
# content instead of a registry's digest.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
prefix=${REGISTRY:+$REGISTRY/}
release=$(mktemp -d)
container=
finish() {
    [ -z "$container" ] || docker rm --force --volumes "$container" >/dev/null
    rm -rf "$release"
}
trap finish EXIT

echo "accuracy: $("$python" -m serving.rollout.release "$release" "$VERSION" ${MODEL:+"$MODEL"})"

build() {
    docker build --quiet --file docker/Dockerfile --target "$1" \
        --build-context "wheelhouse=wheelhouse/$DEVICE" --build-context "archives=$release" \
        --build-arg "VERSION=${FASHION_VERSION:-unknown}" --build-arg "REVISION=${FASHION_REVISION:-unknown}" .
}
replica=$(build service-baked)

# A start ends with the golden check of every model.
container=$(docker run --detach --network none --read-only --cap-drop ALL --tmpfs /tmp:exec --tmpfs /state:uid=10001 "$replica")
status=starting
while [ "$status" = starting ]; do
    sleep 0.5
    status=$(docker inspect --format '{{if .State.Running}}{{.State.Health.Status}}{{else}}ended{{end}}' "$container")
done
if [ "$status" != healthy ]; then
    docker logs --tail 20 "$container" >&2
    echo "error: the image does not become ready, so it has no tag; the end of its log is above" >&2
    exit 1
fi
echo "golden examples: passed in the image"

publish() { # VARIABLE NAME IMAGE TAG
    local image=$prefix$2:$4-${3:7:12}
    docker tag "$3" "$image"
    if [ -n "$prefix" ]; then
        docker push --quiet "$image" >/dev/null
        image=$(docker inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" | grep "^$prefix$2@")
    fi
    echo "$1=$image"
}
publish FASHION_IMAGE fashion-serve "$replica" "$VERSION"
publish FASHION_EDGE_IMAGE fashion-serve-edge "$(build edge)" "${FASHION_VERSION:-unknown}"
