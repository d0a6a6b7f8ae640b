#!/bin/sh
# refused.sh IMAGE [KEYS.PEM]: show that cosign refuses an image whose receipt does not pass.
# DOCKWARDEN_SERVER: where the public key is fetched from, if KEYS.PEM is not given.
set -eu
image=${1:?usage: refused.sh IMAGE [KEYS.PEM]}
keys=${2:-keys.pem}
here=$(dirname "$0")
[ -e "$keys" ] || curl -fsS -o "$keys" "${DOCKWARDEN_SERVER:?}/api/v1/receipts/keys.pem"
if cosign verify-attestation --key "$keys" --insecure-ignore-tlog --type https://slsa.dev/verification_summary/v1 \
  --policy "$here/receipt.rego" "$image" > /dev/null; then
  echo "admitted: $image"
else
  echo "refused: $image"
  exit 1
fi
