#!/usr/bin/env bash
# RFC 6455 conformance: every Autobahn case but compression against `gateway --echo`. The report stays in .cache/conformance/.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/need.sh cargo cc venv
cargo build --package roomcast-gateway --bin gateway
exec .cache/venv/bin/python -B gateway/tests/conformance/run.py --gateway target/debug/gateway "$@"
