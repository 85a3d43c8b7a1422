#!/usr/bin/env bash
# Starts one node on the embedded broker. The dev profile, since it builds in a fraction of the time and optimizes the
# dependencies already; RELEASE=1 takes the release profile. Arguments are the gateway's flags.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/need.sh cargo cc
profile=dev dir=debug
if [ -n "${RELEASE:-}" ]; then profile=release dir=release; fi
cargo build --package roomcast-gateway --bin gateway --profile "$profile"
echo "Roomcast starts: open the page it names in two tabs; Ctrl-C ends it."
exec "target/$dir/gateway" "$@"
