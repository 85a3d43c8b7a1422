#!/usr/bin/env bash
# Replaces the nodes of docker-compose.yml one at a time by such as the file now asks for (another GATEWAY_TAG, other
# settings), without losing a message: a new one is started and must be healthy before an old one is told to leave, which
# sends its clients away gently. If a new one does not become healthy it is removed, and the rest stays as it is.
#
#   GATEWAY_TAG=0.2.0 scripts/compose-roll.sh              goes forward; the older tag goes back
#   scripts/compose-roll.sh -p myproject -f other.yml      arguments are docker-compose's own
set -euo pipefail

# Time for a new node to become healthy.
HEALTHY_WITHIN=${HEALTHY_WITHIN:-60}

if docker compose version >/dev/null 2>&1; then command=(docker compose); else command=(docker-compose); fi
compose() { "${command[@]}" "$@"; }

say() { echo "roll: $*"; }
nodes() { compose "${options[@]}" ps -q gateway; }

healthy() { # container: waits
  local end=$((SECONDS + HEALTHY_WITHIN))
  until [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; do
    ((SECONDS < end)) || return 1
    sleep 1
  done
}

options=("$@")
mapfile -t old < <(nodes)
((${#old[@]} > 0)) || { say "no node runs; start them with docker-compose up"; exit 1; }

for node in "${old[@]}"; do
  name=$(docker inspect --format '{{slice .Name 1}}' "$node")
  before=$(nodes)
  compose "${options[@]}" up -d --no-deps --no-recreate --scale "gateway=$((${#old[@]} + 1))" gateway >/dev/null 2>&1
  new=$(comm -13 <(sort <<<"$before") <(nodes | sort))
  if ! healthy "$new"; then
    docker logs --tail 20 "$new" >&2 || true
    docker inspect --format '{{range .State.Health.Log}}{{.Output}}{{end}}' "$new" | tail -n 1 >&2
    docker rm --force "$new" >/dev/null
    say "the new node did not become healthy within $HEALTHY_WITHIN s; the old ones go on"
    exit 1
  fi
  # As long as the file's stop_grace_period, which the container knows.
  docker stop "$node" >/dev/null
  say "$name left with $(docker inspect --format '{{.State.ExitCode}}' "$node"), $(docker inspect --format '{{slice .Name 1}}' "$new") serves"
  docker rm "$node" >/dev/null
done
