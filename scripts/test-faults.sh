#!/usr/bin/env bash
# The long forms of the fault tests, one after the other, even after one has failed: a table, then `N passed, N failed`.
# FAULT_SEED=N repeats a run of random faults. Each form's output stays in .cache/logs/. About a quarter of an hour.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
scripts/need.sh cargo cc redis-server network faketime || exit 1
cargo build --quiet --package roomcast-gateway --bin gateway &&
  cargo build --quiet --release --package roomcast-gateway --bin gateway &&
  cargo test --quiet --package roomcast-gateway --package roomcast-loadtest --test it --no-run || exit 1

logs=.cache/logs
seed=${FAULT_SEED:-$(date +%s)}
mkdir -p "$logs"
passed=0 failed=0 rows=()

# fault NAME PACKAGE TEST [VARIABLE=VALUE...]: one row of the table, with what the test said it measured.
fault() {
  local name=$1 package=$2 filter=$3 log began status=ok said count
  shift 3
  log=$logs/fault-${name// /-}.log
  began=$(date +%s)
  echo "== $name: $* $filter"
  # A skipped fault is none that was shown.
  env CI_STRICT=1 "$@" cargo test --quiet --package "roomcast-$package" --test it "$filter" -- --nocapture --test-threads 1 \
    >"$log" 2>&1 || status=FAILED
  count=$(sed -n 's/^test result: .* \([0-9]*\) passed;.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
  if [ "$count" = 0 ]; then status=FAILED; fi
  if [ "$status" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); tail -n 40 "$log"; fi
  said=$(grep -E '^(unready|caught up|[0-9]+ )' "$log" | tail -n 1)
  rows+=("$(printf '| %-32s | %-6s | %4d s | %s' "$name" "$status" $(($(date +%s) - began)) "$said")")
}

fault "Redis away 30 s" gateway cluster::absence::a_redis_out_of_reach ABSENCE_SECONDS=30
fault "Redis away 120 s" gateway cluster::absence::a_redis_out_of_reach ABSENCE_SECONDS=120
fault "5 % of all packets lost" loadtest loss::one_packet_in_twenty LOSS_SECONDS=60
fault "500 ms on each way" loadtest loss::half_a_second LOSS_SECONDS=60
# Ten thousand handshakes on two cores: of a build that is made for it.
fault "10,000 back at once" loadtest storm:: STORM_CLIENTS=10000 GATEWAY_UNDER_TEST="$PWD/target/release/gateway"
fault "a replica that lagged" loadtest failover::what_a_replica
fault "planned failover" loadtest failover::a_planned_failover_loses
fault "planned, writes paused" loadtest failover::a_planned_failover_while
fault "clocks 5 minutes off" loadtest clocks::
fault "an older state, and no terms" loadtest terms::
fault "slow consumer" gateway limits::of_many
echo "FAULT_SEED=$seed"
fault "random faults" loadtest faults:: FAULT_SEED="$seed" FAULT_RUNS=6 FAULT_COUNT=8

printf '\n| fault                            | result | took   | measured\n'
printf '%s\n' "${rows[@]}"
echo "random faults: repeat with FAULT_SEED=$seed make test-faults; logs in $logs/fault-*.log"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
