#!/usr/bin/env bash
# The Helm chart's suite: lint, templates, refusals, Kubernetes' own schemas, policies, drift. ARGS narrow it, as pytest does.
# GATEWAY and LOADTEST may name the two programs that it starts; without them it builds its own.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
scripts/need.sh cargo cc redis-server helm kustomize venv-chart crds || exit 1
mkdir -p .cache/logs
[ -n "${GATEWAY:-}" ] && [ -n "${LOADTEST:-}" ] || cargo build --quiet --package roomcast-gateway --bin gateway --package roomcast-loadtest --bin loadtest || exit 1
.cache/venv-chart/bin/python -B -m pytest -q -p no:cacheprovider --color=no helm/tests "$@" 2>&1 | tee .cache/logs/chart-pytest.log
status=${PIPESTATUS[0]}
# pytest's last line, such as `2 failed, 90 passed, 1 error in 5.03s`, as all suites say it. What was skipped did not pass.
last=$(tail -n 1 .cache/logs/chart-pytest.log)
number() { local found; found=$(grep -oE "[0-9]+ $1" <<<"$last"); echo "${found%% *}"; }
sum() { local total=0 word; for word in "$@"; do total=$((total + ${word:-0})); done; echo "$total"; }
echo "$(sum "$(number passed)") passed, $(sum "$(number failed)" "$(number error)" "$(number skipped)") failed"
exit "$status"
