#!/usr/bin/env bash
# Three nodes of BIN on one redis-server, and chat.py against them. usage: run.sh BIN [chat.py arguments]
# PYTHON names an interpreter that has `websockets` (default: .cache/venv's, else python3).
set -euo pipefail

bin=$(realpath "${1:?usage: run.sh BIN [chat.py arguments]}")
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=${PYTHON:-$root/.cache/venv/bin/python}
[[ -x $python ]] || python=python3
"$python" -c 'import websockets' || { echo "needs the Python package websockets: pip install websockets" >&2; exit 2; }
command -v redis-server >/dev/null || { echo "needs redis-server: apt-get install redis-server" >&2; exit 2; }

work=$(mktemp -d)
started=()
finish() {
  local code=$?
  trap - EXIT
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait "${started[@]}" 2>/dev/null || true
  if ((code != 0)); then tail -n 20 "$work"/*.log >&2 || true; fi
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT

# until WORDS CMD...: asks again until CMD succeeds, at most 20 s.
until_true() {
  local what=$1 end=$((SECONDS + 20))
  shift
  until "$@"; do
    ((SECONDS < end)) || { echo "deadline passed: $what" >&2; exit 1; }
    sleep 0.05
  done
}

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work" >"$work/redis.log" 2>&1 &
started+=($!)
until_true "redis-server answers" grep -q 'Ready to accept connections' "$work/redis.log"

urls=()
for number in 1 2 3; do
  log=$work/node-$number.log
  (cd "$work" && exec "$bin" --node-id "node-$number" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
    --log-format json --redis "redis://127.0.0.1:$port") 2>"$log" &
  started+=($!)
  until_true "node $number listens" grep -q '"message": *"listening"' "$log"
  urls+=("ws://$(sed -nE 's/.*"message": *"listening".*/&/; s/.*"addr": *"([^"]+)".*/\1/p' "$log" | head -n 1)")
done

"$python" "$here/chat.py" "${urls[@]}" "$@"
