#!/usr/bin/env bash
# Write the CycloneDX list of the image's packages: Debian's, from dpkg's database, and Python's, from their metadata.
#
#   docker/sbom.sh OUTPUT.cdx.json <ROOT.tar
#
# ROOT.tar has the image's var/lib/dpkg/status, etc/os-release and opt/venv/lib/python3*/site-packages/*.dist-info.
# `make sbom` takes them from the image; an export of a container has them too.
set -euo pipefail
cd "$(dirname "$0")/.."

output=${1:?"error: usage: $0 OUTPUT.cdx.json <ROOT.tar"}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
tar --extract --directory "$root"
# The environment's Python is outside of it. So the metadata of its packages move into an environment of this machine.
.venv-sbom/bin/python -m venv --without-pip "$root/environment"
mv "$root"/opt/venv/lib/python3*/site-packages/*.dist-info "$root"/environment/lib/python3*/site-packages
# The image's wheels come from a folder; packages of which pip noted that would have no address in the list.
rm -f "$root"/environment/lib/python3*/site-packages/*.dist-info/direct_url.json
# The merge needs a root, which is the project; the warning is that pyproject.toml has no dependencies for it.
.venv-sbom/bin/python -W ignore::UserWarning -m cyclonedx_py environment --pyproject pyproject.toml \
    --output-file "$root/python.cdx.json" "$root/environment"
.venv-sbom/bin/debsbom generate --sbom-type cdx --root "$root" --out "$root/debian.cdx.json"
.venv-sbom/bin/debsbom merge --sbom-type cdx --distro-name fashion-serve-image --out "$output" "$root"/{debian,python}.cdx.json
