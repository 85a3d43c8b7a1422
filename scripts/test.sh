#!/usr/bin/env bash
# Runs every suite and sums them up. The last line is `N passed, N failed`. A suite that ends without a count is one
# failure; with CI_STRICT set, so is an ignored test.
#
# A suite outside cargo prints `N passed, N failed` as its last line.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
scripts/need.sh cargo cc redis-server network faketime chromium python venv venv-api node node_modules prometheus openssl \
  redis-exporter || exit 1

# No variable here begins with ROOMCAST_: the gateway refuses those that are no setting.
export PATH=$PWD/.cache/node/bin:$PATH NODE_PATH=$PWD/.cache/node_modules PYTHONDONTWRITEBYTECODE=1
# Tests wait more than they compute: for leases, for time-outs, for processes.
cores=$(nproc)
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((cores > 6 ? cores : 6))}
# The same inputs each time: whether a change may land must not depend on luck. A plain `cargo test` takes others.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}
logs=.cache/logs
mkdir -p "$logs"
passed=0 failed=0 broken=() took=

# count LOG: "passed failed ignored" over cargo's result lines and a suite's own last line.
count() {
  awk '
    /^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1)
                       if ($i ~ /^ignored/) s += $(i-1) } seen = 1 }
    /^[0-9]+ passed, [0-9]+ failed$/ { p += $1; f += $3; seen = 1 }
    END { if (seen) print p + 0, f + 0, s + 0 }' "$1"
}

suite() { # name command...
  local name=$1 log=$logs/$1.log began=$SECONDS status p f s
  shift
  echo "== $name: $*"
  "$@" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  took+="  $name $((SECONDS - began)) s"
  read -r p f s <<<"$(count "$log")"
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
  if [ "$status" != 0 ] && [ "${f:-0}" = 0 ]; then
    failed=$((failed + 1)) broken+=("$name ended with status $status and no failed test")
  elif [ -z "${p:-}" ]; then
    failed=$((failed + 1)) broken+=("$name printed no count")
  fi
  if [ -n "${CI_STRICT:-}" ] && [ "${s:-0}" != 0 ]; then
    failed=$((failed + 1)) broken+=("$name ignored $s tests")
  fi
}

suite cargo cargo test --workspace --no-fail-fast
suite conformance scripts/conformance.sh
# cargo test has built the gateway, since the integration tests start it.
suite interop gateway/tests/cluster.sh 3 ws target/debug/gateway .cache/venv/bin/python gateway/tests/interop/chat.py
suite browser node gateway/tests/browser/run.mjs target/debug/gateway
suite api gateway/tests/api/conformance.sh target/debug/gateway .cache/venv-api/bin/python
suite client clients/js/test/run.sh target/debug/gateway
# So has it the load tester, for the same reason.
suite dashboards .cache/venv/bin/python grafana/tests/dashboards.py target/debug/gateway target/debug/loadtest
suite alerts .cache/venv/bin/python grafana/tests/alerts.py
suite report node loadtest/tests/browser/report.mjs target/debug/loadtest
suite chart scripts/chart-test.sh

for words in ${broken[@]+"${broken[@]}"}; do echo "test: $words"; done
echo "test: took$took"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
