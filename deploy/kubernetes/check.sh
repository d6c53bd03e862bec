#!/usr/bin/env bash
# Check the manifests of this folder: kustomize builds each overlay, kubernetes-validate compares the result with the
# schemas of three versions of Kubernetes, checkov searches it for insecure settings. `make fleet-check` runs it.
#
#   deploy/kubernetes/check.sh              needs .venv-fleet and kustomize 5, in KUSTOMIZE or on PATH
#   KUBE_LAB=PATH deploy/kubernetes/check.sh
#       a real API server also validates the objects. PATH is a program that starts one of Kubernetes 1.20 with `api`,
#       stops it with `down`, and runs `kubectl` and `kustomize` (tests/fleet/kubernetes/lab.py describes the last three).
#   KSERVE_CRDS=FOLDER KUBE_LAB=PATH deploy/kubernetes/check.sh
#       the API server also validates the overlay kserve, with KServe's resource definitions from the folder. Kubernetes
#       1.20 accepts them without rules (x-kubernetes-validations), selectableFields and empty defaults.
set -euo pipefail
cd "$(dirname "$0")"

tools=../../.venv-fleet/bin
versions=(1.35 1.36 1.37)
lab=${KUBE_LAB:+$(cd ../.. && realpath "$KUBE_LAB")}
crds=${KSERVE_CRDS:+$(cd ../.. && realpath "$KSERVE_CRDS")}

if [ -n "${KUSTOMIZE:-}" ]; then
    build=("$KUSTOMIZE" build)
elif command -v kustomize >/dev/null; then
    build=(kustomize build)
elif [ -n "$lab" ]; then
    build=("$lab" kustomize build)
else
    echo "error: kustomize not found; install kustomize 5, or set KUSTOMIZE= to its path" >&2
    exit 1
fi

folder=$(mktemp -d)
group=
finish() {
    if [ -n "$group" ]; then
        "$lab" down
        # An API server that loses its store first does not end by itself.
        kill -KILL -- "-$group" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT

for overlay in cpu gpu canary kserve lab lab/canary; do
    "${build[@]}" "overlays/$overlay" >"$folder/${overlay//\//-}.yaml"
done
echo "kustomize: built cpu, gpu, canary, kserve, lab and lab/canary"

# The lab's kinds are too old for these schemas. Schemas of the Gateway API's and KServe's kinds are not included.
current=("$folder"/{cpu,gpu,canary,kserve}.yaml)
for version in "${versions[@]}"; do
    "$tools/kubernetes-validate" --strict --quiet --no-warn -k "$version" "${current[@]}"
    echo "kubernetes-validate: valid for Kubernetes $version"
done

"$tools/checkov" --quiet --compact --skip-download --framework kubernetes --file "${current[@]}" >"$folder/checkov" || {
    cat "$folder/checkov"
    exit 1
}
grep '^Passed' "$folder/checkov" | sed 's/^/checkov: /'

if [ -z "$lab" ]; then
    echo "API server: skipped, KUBE_LAB is not set"
    exit 0
fi
if ! "$lab" kubectl get --raw /readyz >/dev/null 2>&1; then
    setsid "$lab" api &
    group=$!
    wait "$group"
fi
dry_run() { "$lab" kubectl apply --dry-run=server --filename - >/dev/null; }
# Fails if the server accepts a file after one of its fields was misspelled: then the check would find nothing.
refuses_misspelled() { # FIELD FILE
    grep -q "$1:" "$2"
    if sed "s/$1:/misspelled:/" "$2" | dry_run 2>"$folder/refusal"; then
        echo "error: the API server accepts ${2##*/} with $1 misspelled" >&2
        exit 1
    fi
    grep -q 'unknown field "misspelled"' "$folder/refusal" || { cat "$folder/refusal" >&2; exit 1; }
}
# A dry run needs the objects' namespace.
"$lab" kubectl apply --filename "$PWD/base/namespace.yaml" >/dev/null
dry_run <"$folder/lab.yaml"
dry_run <"$folder/lab-canary.yaml"
refuses_misspelled maxSurge "$folder/lab.yaml"
# The objects of the other overlays, with the two kinds in the lab's versions; it has no Gateway API.
for overlay in cpu gpu; do
    sed -e 's|^apiVersion: autoscaling/v2$|apiVersion: autoscaling/v2beta2|' \
        -e 's|^apiVersion: policy/v1$|apiVersion: policy/v1beta1|' "$folder/$overlay.yaml" | dry_run
done
"${build[@]}" overlays/canary/canary | dry_run
"$lab" kubectl --namespace fashion-serve apply --dry-run=server --filename "$PWD/overlays/canary/services.yaml" >/dev/null
echo "API server: accepts lab, lab/canary, cpu, gpu, and canary without its routes; refuses a misspelled field"
if [ -z "$crds" ]; then
    echo "KServe: skipped, KSERVE_CRDS is not set"
    exit 0
fi
"$lab" kubectl apply --server-side --filename "$crds" >/dev/null
# Until the server describes the new kinds; before that, kubectl accepts any field.
for kind in servingruntimes inferenceservices; do
    for _ in $(seq 100); do
        "$lab" kubectl explain "$kind.spec" >/dev/null 2>&1 && break
        sleep 0.2
    done
done
dry_run <"$folder/kserve.yaml"
refuses_misspelled scaleMetric "$folder/kserve.yaml"
echo "API server: accepts kserve by KServe's own definitions, and refuses a misspelled field"
