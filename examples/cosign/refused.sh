#!/bin/sh
# refused.sh IMAGE [KEYS.PEM]: show that cosign refuses an image whose receipt does not pass, or that has none.
# The environment is the one in receipt.rego: "production", unless you changed it.
# DOCKWARDEN_SERVER: where the public key is fetched from, if KEYS.PEM is not given.
# Exit codes: 0 admitted, 1 refused, 2 it could not be asked: cosign or the key is missing.
set -eu
image=${1:?usage: refused.sh IMAGE [KEYS.PEM]}
keys=${2:-}
here=$(dirname "$0")
command -v cosign > /dev/null || { echo "cosign is not installed" >&2; exit 2; }
if [ -z "$keys" ]; then
  # Fetched each time: a key that was kept would refuse every receipt after the next rotation.
  keys=$(mktemp)
  trap 'rm -f "$keys"' EXIT
  curl -fsS -o "$keys" "${DOCKWARDEN_SERVER:?or give KEYS.PEM}/api/v1/receipts/keys.pem" || exit 2
fi
[ -s "$keys" ] || { echo "no public key in $keys" >&2; exit 2; }
# The receipt of an image that is denied is signed as well. Only the policy refuses it.
environment=$(sed -n 's/^environment := "\(.*\)"$/\1/p' "$here/receipt.rego")
if cosign verify-attestation --key "$keys" --insecure-ignore-tlog --type "urn:dockwarden:receipt:v1:$environment" \
  --policy "$here/receipt.rego" "$image" > /dev/null; then
  echo "admitted: $image"
else
  echo "refused: $image"
  exit 1
fi
