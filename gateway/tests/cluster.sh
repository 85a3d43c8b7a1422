#!/usr/bin/env bash
# Nodes of one cluster for a test that is not Rust: starts a redis-server and NODES gateways on free ports, runs
# COMMAND with the nodes' addresses (SCHEME://host:port) after its own arguments, and stops them all. NODE_ARGS are words
# for each gateway.
# usage: cluster.sh NODES SCHEME GATEWAY COMMAND [ARGUMENT...]
set -euo pipefail

nodes=${1:?nodes} scheme=${2:?scheme} gateway=$(realpath "${3:?gateway}")
shift 3
work=$(mktemp -d)
started=()
finish() {
  local code=$?
  trap - EXIT
  kill "${started[@]}" 2>/dev/null || true
  wait "${started[@]}" 2>/dev/null || true
  if ((code != 0)); then tail -n 20 "$work"/*.log >&2 || true; fi
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT

# await WORDS PATTERN FILE: until the file holds the pattern, at most 30 s.
await() {
  local end=$((SECONDS + 30))
  until grep -qsE "$2" "$3"; do
    ((SECONDS < end)) || { echo "cluster: deadline passed: $1" >&2; exit 1; }
    sleep 0.05
  done
}

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work" >"$work/redis.log" 2>&1 &
started+=($!)
await "redis-server answers" 'Ready to accept connections' "$work/redis.log"

read -ra more <<<"${NODE_ARGS:-}"
urls=()
for ((number = 1; number <= nodes; number++)); do
  log=$work/node-$number.log
  # A directory and an environment of its own keep the developer's settings out.
  (cd "$work" && exec env -i "$gateway" --node-id "node-$number" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
    --log-format json --redis "redis://127.0.0.1:$port" ${more[@]+"${more[@]}"} 2>"$log") &
  started+=($!)
  await "node $number listens" '"message": *"listening"' "$log"
  urls+=("$scheme://$(sed -nE '/"message": *"listening"/ s/.*"addr": *"([^"]+)".*/\1/p' "$log" | head -n 1)")
done

"$@" "${urls[@]}"
