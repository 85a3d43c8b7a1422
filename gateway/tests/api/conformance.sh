#!/usr/bin/env bash
# The HTTP API against its own description: schemathesis makes requests out of openapi.json, good and bad ones, and holds
# the answers to it.
# usage: conformance.sh GATEWAY PYTHON
set -euo pipefail
gateway=$(realpath "${1:?gateway}") python=$(realpath -s "${2:?python}")
cd "$(dirname "$0")"
# The key and its line as an operator gets them.
mapfile -t printed < <(env -i "$gateway" key tests --scopes read,publish,admin | grep -v '^#')
export NODE_ARGS="--api-keys ${printed[1]} --api-rate 0 --livekit-url wss://video.example.com --livekit-api-key key \
  --livekit-api-secret secret-of-the-test"
exec ../cluster.sh 2 http "$gateway" "$python" "$PWD/conformance.py" "${printed[0]}"
