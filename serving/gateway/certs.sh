#!/usr/bin/env bash
# Make a local certificate authority and a certificate for the gateway, signed by it, with openssl.
#
#   serving/gateway/certs.sh [FOLDER [NAME...]]
#
#   FOLDER  for the new files (default keys); nothing there is overwritten
#   NAME    host names and IP addresses under which clients call the gateway (default localhost 127.0.0.1 ::1)
#
# Clients need ca.crt: curl --cacert keys/ca.crt https://127.0.0.1:8000/healthz
set -euo pipefail

folder=${1:-keys}
shift $(($# > 0))
[ $# -gt 0 ] || set -- localhost 127.0.0.1 ::1

die() {
    echo "error: $*" >&2
    exit 1
}
command -v openssl >/dev/null || die "openssl is not installed; on Debian: sudo apt-get install openssl"
[ ! -e "$folder/gateway.crt" ] || die "$folder/gateway.crt exists already; remove $folder to make new certificates"

names=""
for name in "$@"; do
    kind=DNS
    [[ $name =~ ^[0-9.]+$ || $name == *:* ]] && kind=IP
    names+="${names:+,}$kind:$name"
done

umask 077
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/config" <<END
[req]
distinguished_name = name
# Empty, because -subj names the subject, but req needs the section.
[name]
[authority]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = $names
END

# Show openssl's output only if it fails.
exec 3>&2 2>"$work/stderr"
trap 'cat "$work/stderr" >&3' ERR
# P-256 signs fast, and every client supports it.
key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${key[@]}" -config "$work/config" -extensions authority -days 3650 \
    -subj "/CN=fashion-serve local CA" -keyout "$folder/ca.key" -out "$folder/ca.crt"
openssl req "${key[@]}" -config "$work/config" -subj "/CN=$1" -keyout "$folder/gateway.key" -out "$work/request"
# 397 days, because Apple's systems reject certificates with a longer lifetime.
openssl x509 -req -in "$work/request" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial \
    -CAserial "$work/serial" -days 397 -sha256 -extfile "$work/config" -extensions server -out "$folder/gateway.crt"

echo "$folder: ca.crt, ca.key, gateway.crt, gateway.key for $*"
echo "To use them: FASHION_CERTIFICATES=$folder make serve"
