#!/usr/bin/env bash
# The chart on a real Kubernetes: k8s-test.sh [--real]. docs/k8s-test.md says what it builds, how long it takes, what it shows.
# Without --real: the release's life, autoscaling and budgets on nodes of kwok, where nothing runs in pods.
# With it (as root): one node with containerd and kubelet, in namespaces of its own, where the pods really chat.
set -euo pipefail
cd "$(dirname "$0")/.."
control=(kube-apiserver kube-controller-manager kube-scheduler kubectl)
tools=$PWD/.cache/tools

scripts/need.sh python openssl go helm etcd prometheus
# A Go of the project's own, where the machine has none that is new enough.
[ ! -d .cache/go/bin ] || PATH=$PWD/.cache/go/bin:$PATH
PATH=$tools/k8s/bin:$tools/bin:$PATH
if [ "${1:-}" != --real ]; then
  scripts/need.sh crds
  scripts/k8s-build.sh "${control[@]}" kwok adapter
  exec python3 -B scripts/k8s/run.py --chart helm/roomcast --manifests k8s --definitions .cache/crds \
    --rules docs/kubernetes.md --logs .cache/logs/k8s
fi

[ "$(id -u)" = 0 ] || { echo "k8s-test: --real makes network and mount namespaces: run it as root" >&2; exit 1; }
scripts/need.sh cargo cc redis-server network containerd cni
scripts/k8s-build.sh "${control[@]}" adapter kubelet kube-proxy
# BINARIES names a directory with a gateway and a loadtest that are built already.
if [ -z "${BINARIES:-}" ]; then
  BINARIES=target/release
  nice cargo build --release --locked --package roomcast-gateway --package roomcast-loadtest --bins
fi
version=$(sed -n 's/^appVersion: "\(.*\)"/\1/p' helm/roomcast/Chart.yaml)
home=$(mktemp -d)
clear() {
  rm -rf "$home"
  find /sys/fs/cgroup/*/roomcast-k8s-test -depth -type d -exec rmdir {} + 2>/dev/null || true
}
trap clear EXIT
# Everything in there ends with the first process, and so do its mounts, addresses and rules.
unshare --net --mount --pid --fork --mount-proc --kill-child python3 -B scripts/k8s/run_real.py --chart helm/roomcast \
  --rules docs/kubernetes.md --binaries "$BINARIES" --version "$version" --home "$home" --logs .cache/logs/k8s-real
