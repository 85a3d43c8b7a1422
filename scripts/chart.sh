#!/usr/bin/env bash
# Makes what is derived from the Helm chart and its sources: copies of dashboards and alerts, the schema of the settings,
# the README's table, k8s/. With --check it changes nothing and fails if something is out of date.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/need.sh helm venv-chart
exec .cache/venv-chart/bin/python -B helm/make "$@"
