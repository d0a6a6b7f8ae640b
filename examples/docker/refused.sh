#!/usr/bin/env bash
# refused.sh IMAGE [DOCKER OPTION...]: creates a container and removes it at once. Starts nothing.
# Exit codes: 0 allowed; 1 refused, with the reason; 2 wrong usage; 3 another error.
set -euo pipefail
image=${1:?usage: refused.sh IMAGE [DOCKER OPTION...], such as refused.sh registry.example.com/web:1 --privileged}
command -v docker >/dev/null || { echo "docker is not installed" >&2; exit 2; }
if answer=$(docker create "${@:2}" "$image" true 2>&1); then
  docker rm "$(tail -n 1 <<<"$answer")" >/dev/null
  echo "allowed: $image"
elif [[ $answer == *"authorization denied by plugin"* ]]; then
  echo "$answer"; echo "refused: $image"; exit 1
else
  echo "$answer" >&2; exit 3
fi
