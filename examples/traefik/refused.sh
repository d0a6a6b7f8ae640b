#!/usr/bin/env bash
# refused.sh IMAGE [SKOPEO OPTION...]: tries to pull an image through the gate into a temporary directory.
# Exit codes: 0 pulled; 1 refused, with the reason; 2 wrong usage; 3 another error.
set -euo pipefail
image=${1:?usage: refused.sh IMAGE [SKOPEO OPTION...], such as refused.sh registry.example.com/shop/web:1.4.2}
command -v skopeo >/dev/null || { echo "skopeo is not installed" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
if answer=$(skopeo --insecure-policy copy --quiet --all "${@:2}" "docker://$image" "dir:$directory" 2>&1); then
  echo "pulled: $image"
elif [[ $answer == *denied* || $answer == *DENIED* ]]; then
  echo "$answer"; echo "refused: $image"; exit 1
else
  echo "$answer" >&2; exit 3
fi
