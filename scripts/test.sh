#!/usr/bin/env bash
# Runs every suite and sums them up. The last line is `N passed, N failed`. A suite that ends without a count is one
# failure; with ROOMCAST_CI set, so are an ignored test and a suite without tests.
#
# A suite other than cargo's is a program that prints `N passed, N failed` as its last line:
#   gateway/tests/interop/*_test.py    a client that is not ours, run by .cache/venv/bin/python
#   gateway/tests/browser/*_test.mjs   pages in Chromium; require("playwright-core") works through createRequire
# They find the gateway's executable in $ROOMCAST_GATEWAY, the browser in $ROOMCAST_CHROMIUM.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
scripts/need.sh cargo cc redis-server chromium python venv node node_modules || exit 1

export ROOMCAST_GATEWAY=$PWD/target/debug/gateway
export ROOMCAST_PYTHON=$PWD/.cache/venv/bin/python
export ROOMCAST_CHROMIUM=${ROOMCAST_CHROMIUM:-$(command -v chromium)}
export NODE_PATH=$PWD/.cache/node_modules PYTHONDONTWRITEBYTECODE=1
logs=.cache/logs
mkdir -p "$logs"
passed=0 failed=0 broken=()

# count LOG: "passed failed ignored" over cargo's result lines and a suite's own last line.
count() {
  awk '
    /^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1)
                       if ($i ~ /^ignored/) s += $(i-1) } seen = 1 }
    /^[0-9]+ passed, [0-9]+ failed$/ { p += $1; f += $3; seen = 1 }
    END { if (seen) print p + 0, f + 0, s + 0 }' "$1"
}

suite() { # name command...
  local name=$1 log=$logs/$1.log status p f s
  shift
  echo "== $name: $*"
  "$@" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  read -r p f s <<<"$(count "$log")"
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
  if [ "$status" != 0 ] && [ "${f:-0}" = 0 ]; then
    failed=$((failed + 1)) broken+=("$name ended with status $status and no failed test")
  elif [ -z "${p:-}" ]; then
    failed=$((failed + 1)) broken+=("$name printed no count")
  fi
  if [ -n "${ROOMCAST_CI:-}" ] && [ "${s:-0}" != 0 ]; then
    failed=$((failed + 1)) broken+=("$name ignored $s tests")
  fi
}

each() { # directory suffix runner...: one suite per file
  local files=("$1"/*"$2") dir=$1 suffix=$2 file
  shift 2
  if [ ! -e "${files[0]}" ]; then
    if [ -n "${ROOMCAST_CI:-}" ]; then failed=$((failed + 1)); fi
    broken+=("$dir holds no *$suffix")
    return
  fi
  for file in "${files[@]}"; do suite "$(basename "$dir")-$(basename "$file" "$suffix")" "$@" "$file"; done
}

suite cargo cargo test --workspace --no-fail-fast
suite conformance scripts/conformance.sh
each gateway/tests/interop _test.py "$ROOMCAST_PYTHON"
each gateway/tests/browser _test.mjs node

for words in ${broken[@]+"${broken[@]}"}; do echo "test: $words"; done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
