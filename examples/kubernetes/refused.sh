#!/usr/bin/env bash
# refused.sh IMAGE [NAMESPACE]: tests with a server-side dry run whether a cluster would allow an image. Starts nothing.
# Exit codes: 0 allowed; 1 refused, with the reason; 2 wrong usage.
set -euo pipefail
image=${1:?usage: refused.sh IMAGE [NAMESPACE]}
namespace=${2:-default}
kubectl get validatingwebhookconfiguration dockwarden >/dev/null || { echo "set it up first: docs/admission.md" >&2; exit 2; }
if answer=$(kubectl run dockwarden-probe --namespace "$namespace" --image "$image" --dry-run=server 2>&1); then
  echo "$answer"; echo "let in: $image"
else
  echo "$answer"; echo "refused: $image"; exit 1
fi
