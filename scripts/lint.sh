#!/usr/bin/env bash
# Every check, even after one has failed; the last line names those that did.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
scripts/need.sh cargo cc fmt clippy shellcheck cargo-deny || exit 1
bad=()
check() { # name command...
  local name=$1
  shift
  echo "== $name: $*"
  "$@" || bad+=("$name")
}
check fmt cargo fmt --all --check
check clippy cargo clippy --workspace --all-targets --quiet -- -D warnings
check tidy cargo xtask tidy
check deny .cache/tools/bin/cargo-deny --log-level warn check --hide-inclusion-graph bans licenses sources
check doc env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
check shellcheck shellcheck scripts/*.sh gateway/tests/*.sh clients/js/test/*.sh .ci/run
if [ ${#bad[@]} = 0 ]; then echo "lint: clean"; else echo "lint: failed: ${bad[*]}"; exit 1; fi
