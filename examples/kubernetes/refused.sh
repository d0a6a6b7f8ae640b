#!/usr/bin/env bash
# refused.sh IMAGE [NAMESPACE]: asks a cluster whether an image would be let in, and starts nothing (a server-side dry run).
# Exit 0: it would be; 1: it would be refused, and the reason is printed; 2: wrong usage.
set -euo pipefail
image=${1:?usage: refused.sh IMAGE [NAMESPACE]}
namespace=${2:-default}
kubectl get validatingwebhookconfiguration dockwarden >/dev/null || { echo "set it up first: docs/admission.md" >&2; exit 2; }
if answer=$(kubectl run dockwarden-probe --namespace "$namespace" --image "$image" --dry-run=server 2>&1); then
  echo "$answer"; echo "let in: $image"
else
  echo "$answer"; echo "refused: $image"; exit 1
fi
