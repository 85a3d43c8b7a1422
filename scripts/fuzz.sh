#!/usr/bin/env bash
# Runs every target of fuzz/fuzz_targets for the given seconds (120). libFuzzer's instrumentation is an unstable rustc
# flag; on a stable toolchain it is let through.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-120}
[ -d fuzz/fuzz_targets ] || { echo "fuzz: there is no fuzz/fuzz_targets" >&2; exit 1; }
scripts/need.sh cargo cc cargo-fuzz
rustc --version | grep -q nightly || export RUSTC_BOOTSTRAP=1
for target in fuzz/fuzz_targets/*.rs; do
  name=$(basename "$target" .rs)
  echo "fuzz: $name for $seconds s"
  .cache/tools/bin/cargo-fuzz run "$name" -- -max_total_time="$seconds" -print_final_stats=1
done
