#!/usr/bin/env bash
# The Helm chart's suite: lint, templates, refusals, Kubernetes' own schemas, policies, drift. ARGS narrow it, as pytest does.
# What it starts (a gateway that reads the chart's settings, a load test) is built if it is not.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
scripts/need.sh cargo cc redis-server helm kustomize venv-chart crds || exit 1
mkdir -p .cache/logs
cargo build --quiet --package roomcast-gateway --bin gateway --package roomcast-loadtest --bin loadtest || exit 1
.cache/venv-chart/bin/python -B -m pytest -q -p no:cacheprovider --color=no helm/tests "$@" 2>&1 | tee .cache/logs/chart-pytest.log
status=${PIPESTATUS[0]}
# pytest's last line, such as `2 failed, 90 passed, 1 error in 5.03s`, as all suites say it. What was skipped did not pass.
last=$(tail -n 1 .cache/logs/chart-pytest.log)
number() { grep -oE "[0-9]+ $1" <<<"$last" | cut -d' ' -f1; }
passed=$(number passed) failed=$(($(number failed) + $(number error) + $(number skipped)))
echo "${passed:-0} passed, $failed failed"
exit "$status"
