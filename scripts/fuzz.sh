#!/usr/bin/env bash
# Fuzzes each of the named targets, or every one, for the given seconds (120), one after the other, even after one has
# failed; the last line names those that did. fuzz.sh [SECONDS [TARGET...]]
# libFuzzer's instrumentation is an unstable rustc flag; on a stable toolchain it is let through.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-120}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "fuzz: not a number of seconds: $seconds" >&2; exit 2; }
targets=("${@:2}")
if [ ${#targets[@]} = 0 ]; then
  for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
scripts/need.sh cargo cc c++ cargo-fuzz
rustc --version | grep -q nightly || export RUSTC_BOOTSTRAP=1
fuzz=.cache/tools/bin/cargo-fuzz
mkdir -p .cache/logs
bad=()
for target in "${targets[@]}"; do
  log=.cache/logs/fuzz-$target.log
  echo "fuzz: building $target"
  "$fuzz" build "$target" || { bad+=("$target"); continue; }
  echo "fuzz: $target for $seconds s, all of it in $log"
  # An input that takes 10 s, or 2 GiB for one allocation or in all, is a failure like a panic.
  if ! "$fuzz" run "$target" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=2048 \
    -print_final_stats=1 >"$log" 2>&1; then
    tail -n 40 "$log"
    bad+=("$target")
  fi
  grep -E '^#[0-9]+[[:space:]]+(INITED|DONE)|^stat::|^Done ' "$log" || true
done
if [ ${#bad[@]} = 0 ]; then echo "fuzz: clean: ${targets[*]}"; else echo "fuzz: failed: ${bad[*]}"; exit 1; fi
