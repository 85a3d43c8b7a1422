#!/usr/bin/env bash
# The JavaScript client's tests: its types, a scripted server, real nodes and a real Redis, a real browser.
# The last line is `N passed, N failed`.
# usage: clients/js/test/run.sh GATEWAY [OPTION OF node --test...]
set -uo pipefail
cd "$(dirname "$0")/../../.." || exit 1
GATEWAY_UNDER_TEST=$(realpath "${1:-target/debug/gateway}") || exit 1
export GATEWAY_UNDER_TEST PATH=$PWD/.cache/node/bin:$PATH NODE_PATH=$PWD/.cache/node_modules
scripts/need.sh node node_modules redis-server chromium || exit 1
log=.cache/logs/client-js.log
mkdir -p "${log%/*}"
# Nodes are started and killed: two files at a time are enough for two cores.
node --test --test-concurrency=2 --test-reporter=spec "${@:2}" clients/js/test/*.test.js clients/js/test/*/*.test.js 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
# Tests that were cancelled, such as those behind a broken hook, have failed.
awk -v status="$status" '
  { gsub(/\033\[[0-9;]*m/, "") }
  $2 == "pass" && NF == 3 { passed = $3 } ($2 == "fail" || $2 == "cancelled") && NF == 3 { failed += $3 }
  END { if (status != 0 && failed == 0) failed = 1; printf "%d passed, %d failed\n", passed, failed }' "$log"
exit "$status"
