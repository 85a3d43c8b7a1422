#!/usr/bin/env bash
# Replaces the nodes of docker-compose.yml one at a time by such as the file now asks for (another GATEWAY_TAG, other
# settings), without losing a message: a new one is started and must be healthy before an old one is told to leave, which
# sends its clients away gently. If a new one does not become healthy it is removed, and the rest stays as it is.
#
#   GATEWAY_TAG=0.2.0 docker-compose build                 makes the image: it builds and pulls none by itself
#   GATEWAY_TAG=0.2.0 scripts/compose-roll.sh              goes forward; the older tag goes back
#   scripts/compose-roll.sh -p myproject -f other.yml      arguments are docker-compose's own
set -euo pipefail

# Time for a new node to become healthy.
HEALTHY_WITHIN=${HEALTHY_WITHIN:-60}

if docker compose version >/dev/null 2>&1; then command=(docker compose); else command=(docker-compose); fi
compose() { "${command[@]}" "$@"; }

say() { echo "roll: $*"; }
nodes() { compose "${options[@]}" ps -q gateway; }
# Those as well that did not start.
containers() { compose "${options[@]}" ps -a -q gateway | sort; }

# The image that the file asks for, once variables and overrides are in. Version 1 cannot print it alone.
image() {
  compose "${options[@]}" config | awk '
    /^[^ ]/ { services = $1 == "services:" }
    services && /^  [^ ]/ { gateway = $1 == "gateway:" }
    services && gateway && /^    image:/ { print $2 }'
}

healthy() { # container: waits
  local end=$((SECONDS + HEALTHY_WITHIN))
  until [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; do
    ((SECONDS < end)) || return 1
    sleep 1
  done
}

give_up() { # reason: takes away the new ones, if there are any
  local node
  for node in $new; do docker rm --force "$node" >/dev/null || true; done
  say "$1; the old ones go on" >&2
  exit 1
}

options=("$@")
mapfile -t old < <(nodes)
((${#old[@]} > 0)) || { say "no node runs; start them with docker-compose up" >&2; exit 1; }
image=$(image)
[ -n "$image" ] || { say "docker-compose's configuration names no image of gateway" >&2; exit 1; }
docker image inspect "$image" >/dev/null ||
  { say "there is no image $image here; make it first, by GATEWAY_TAG=${image##*:} ${command[*]} build" >&2; exit 1; }

for node in "${old[@]}"; do
  name=$(docker inspect --format '{{slice .Name 1}}' "$node")
  before=$(containers)
  failed=0
  output=$(compose "${options[@]}" up -d --no-build --no-deps --no-recreate --scale "gateway=$((${#old[@]} + 1))" gateway 2>&1) ||
    failed=$?
  new=$(comm -13 <(echo "$before") <(containers))
  if ((failed)); then
    printf '%s\n' "$output" >&2
    give_up "a new node could not be started (${command[*]} up ended with $failed)"
  fi
  if [ "$(wc -w <<<"$new")" != 1 ]; then
    printf '%s\n' "$output" >&2
    give_up "${command[*]} up made no new node, or several; stopped ones go away with ${command[*]} rm gateway"
  fi
  if ! healthy "$new"; then
    docker logs --tail 20 "$new" >&2 || true
    docker inspect --format '{{range .State.Health.Log}}{{.Output}}{{end}}' "$new" | tail -n 1 >&2
    give_up "the new node did not become healthy within $HEALTHY_WITHIN s"
  fi
  # As long as the file's stop_grace_period, which the container knows.
  docker stop "$node" >/dev/null
  say "$name left with $(docker inspect --format '{{.State.ExitCode}}' "$node"), $(docker inspect --format '{{slice .Name 1}}' "$new") serves"
  docker rm "$node" >/dev/null
done
