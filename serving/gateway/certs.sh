#!/usr/bin/env bash
# Make a certificate authority of one's own, and a certificate for the gateway signed by it, with openssl.
#
#   serving/gateway/certs.sh [FOLDER [NAME...]]
#
#   FOLDER  where they go (default keys); nothing there is overwritten
#   NAME    host names and IP addresses that the gateway is called by (default localhost 127.0.0.1 ::1)
#
# ca.crt is what clients need: curl --cacert keys/ca.crt https://127.0.0.1:8000/healthz
set -euo pipefail

folder=${1:-keys}
shift $(($# > 0))
[ $# -gt 0 ] || set -- localhost 127.0.0.1 ::1

die() {
    echo "error: $*" >&2
    exit 1
}
command -v openssl >/dev/null || die "openssl is not installed; on Debian: sudo apt-get install openssl"
[ ! -e "$folder/gateway.crt" ] || die "$folder/gateway.crt is there already; remove $folder to make new ones"

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
# req needs this section; -subj names the subject.
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

# openssl's remarks are shown only where it fails.
exec 3>&2 2>"$work/said"
trap 'cat "$work/said" >&3' ERR
# P-256: quick to sign with, and known to every client.
key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${key[@]}" -config "$work/config" -extensions authority -days 3650 \
    -subj "/CN=fashion-serve local CA" -keyout "$folder/ca.key" -out "$folder/ca.crt"
openssl req "${key[@]}" -config "$work/config" -subj "/CN=$1" -keyout "$folder/gateway.key" -out "$work/request"
# 397 days: Apple's systems take no certificate for longer.
openssl x509 -req -in "$work/request" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial \
    -CAserial "$work/serial" -days 397 -sha256 -extfile "$work/config" -extensions server -out "$folder/gateway.crt"

echo "$folder: ca.crt, ca.key, gateway.crt, gateway.key for $*"
echo "Serve with them: FASHION_CERTIFICATES=$folder make serve"
