#!/usr/bin/env bash
# docker-compose.yml on real containers: scaling, a killed node, a restarted Redis, an upgrade one node at a time, with
# loadtest auditing throughout; and the page through the balancer in a browser. The last line is `N passed, N failed`.
# Installs what is missing (docker.io, docker-compose), and starts dockerd if none answers, for as long as this runs.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/need.sh docker python chromium node node_modules
export PATH=$PWD/.cache/node/bin:$PATH NODE_PATH=$PWD/.cache/node_modules PYTHONDONTWRITEBYTECODE=1
log=$PWD/.cache/logs/dockerd.log
mkdir -p .cache/logs

# One at a time: two runs would take down each other's stack.
exec 9>.cache/compose-test.lock
flock 9

daemon=
finish() {
  if [ -n "$daemon" ]; then
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
  fi
}
trap finish EXIT

answers() { docker info >/dev/null 2>&1; }

start_daemon() {
  [ "$(id -u)" = 0 ] || { echo "compose-test: no docker answers, and only root can start one" >&2; return 1; }
  # One that was killed leaves its number behind, which may be somebody else's by now.
  if ! grep -qs '^dockerd' "/proc/$(cat /var/run/docker.pid 2>/dev/null || echo none)/comm"; then rm -f /var/run/docker.pid; fi
  dockerd >"$log" 2>&1 9>&- &
  daemon=$!
  for _ in $(seq 120); do
    if answers; then return; fi
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.5
  done
  kill "$daemon" 2>/dev/null || true
  return 1
}

if ! answers; then
  echo "compose-test: starting dockerd, log in ${log#"$PWD"/}"
  # Older kernels have only the older of the two kinds of iptables.
  start_daemon || { update-alternatives --set iptables /usr/sbin/iptables-legacy >/dev/null && start_daemon; } ||
    { tail -n 10 "$log" >&2; exit 1; }
fi

# What docker-compose.yml runs without a profile, and what its image is built from.
mapfile -t images < <(sed -nE '/^FROM [a-z]+:/ s/^FROM ([^ ]+).*/\1/p' Dockerfile
  awk '/profiles:/ { optional = 1 } /^  [a-z-]+:$/ { optional = 0 }
       /image: \$\{[A-Z_]+_IMAGE:-/ && !optional { gsub(/.*:-|\}$/, ""); print }' docker-compose.yml)
scripts/local-images.sh "${images[@]}"
# With the image that the gateway is built in, which is Debian.
python3 compose/tests/reach.py "${images[0]}"

if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
echo "compose-test: ${compose[*]} $("${compose[@]}" version --short), images ${images[*]}"

# Here, so that its time is not counted as the stack's; `up --build` then finds it made.
began=$SECONDS
GATEWAY_TAG=compose-test COMPOSE_PROJECT_NAME=roomcast-test "${compose[@]}" build >.cache/logs/image.log 2>&1 ||
  { tail -n 30 .cache/logs/image.log >&2; exit 1; }
echo "compose-test: image built in $((SECONDS - began)) s, log in .cache/logs/image.log"
python3 compose/tests/stack.py roomcast-test "${compose[@]}"
