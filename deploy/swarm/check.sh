#!/usr/bin/env bash
# Check the files of this folder without a swarm: HAProxy reads the edge's configuration, Docker's client reads the stack.
#
#   deploy/swarm/check.sh        run by `make fleet-check`; a program that is missing is skipped, and with CI set an error
set -euo pipefail
cd "$(dirname "$0")"

skip() {
    echo "$1: skipped, $2"
    [ -z "${CI:-}" ]
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
set -a
# shellcheck disable=SC1091
. ./fleet.env.example
set +a

# Debian installs it in a folder that is not on every PATH.
if haproxy=$(PATH=$PATH:/usr/sbin command -v haproxy); then
    ../../serving/gateway/certs.sh "$folder/keys" >/dev/null
    cat "$folder/keys/gateway.crt" "$folder/keys/gateway.key" >"$folder/certificate.pem"
    sed "s|/run/secrets/|$folder/|" haproxy.cfg >"$folder/haproxy.cfg"
    EDGE_CANARY_PERCENT=$FASHION_CANARY_PERCENT EDGE_RATE_LIMIT=$FASHION_RATE_LIMIT "$haproxy" -q -c -f "$folder/haproxy.cfg"
    echo "haproxy: the edge's configuration is valid"
else
    skip haproxy "not found; on Debian: sudo apt-get install haproxy"
fi

if command -v docker >/dev/null; then
    docker stack config -c stack.yml >"$folder/stack.yml"
    docker stack config -c stack.yml -c monitoring.yml >"$folder/stack.yml"
    echo "docker stack: stack.yml and monitoring.yml are valid"
else
    skip "docker stack" "docker not found"
fi
