#!/usr/bin/env bash
# Gets the public images that compose-test needs. Where none can be pulled it makes stand-ins under the same names from
# Debian's packages: with the entrypoint, paths, users and ports that docker-compose.yml relies on, but in the version
# that Debian has. For tests on machines without a registry only: never push them, never run anything that matters on them.
#
#   local-images.sh redis:7-bookworm haproxy:2.6-bookworm ...
#
# An image that is there and was not made here is left alone; a stand-in whose recipe has changed is made anew. Needs a
# running docker, and root for debootstrap. NO_PULL=1 does not try to pull.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=bookworm
base=roomcast-stand-in/debian:$suite
label=roomcast.stand-in
work=$(mktemp -d)
finish() {
  umount -q "$work/root" 2>/dev/null || true
  rm -rf --one-file-system "$work"
}
trap finish EXIT

say() { echo "local-images: $*" >&2; }
die() { say "$*"; exit 1; }

# What the recipe of an image was; fails if there is no such image, empty if it was not made here.
made_by() { docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null; }

# ------------------------------------------------------------------ the base: Debian as this machine's apt knows it

# "URI suite component" of Debian's own sources on this machine. Third-party sources stay out.
sources() {
  # shellcheck disable=SC2016 # apt's own placeholders
  apt-get indextargets --format '$(CREATED_BY)|$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)' |
    awk -F'|' -v suite="$suite" '$1 == "Packages" && $2 == "Debian" && index($4, suite) == 1 { print $3, $4, $5 }' | sort -u
}

# How this machine reaches them: proxies, and what an archive of old snapshots needs.
network() {
  apt-config dump --format '%f "%v";%n' | grep -E '^Acquire::(https?::(Proxy|Timeout)|Check-Valid-Until|Retries)' || true
}

make_base() {
  local root=$work/root mirror
  mirror=$(sources | awk -v suite="$suite" '$2 == suite { print $1; exit }')
  [ -n "$mirror" ] || die "this machine's apt has no source of Debian $suite"
  mkdir -p "$root"
  # Only for speed: dpkg syncs after each file.
  mount -t tmpfs -o size=1g,mode=755 tmpfs "$root" 2>/dev/null || true
  debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; die "debootstrap failed"; }
  sources | sed 's/^/deb /' >"$root/etc/apt/sources.list"
  network >"$root/etc/apt/apt.conf.d/99network"
  printf 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n' >"$root/etc/apt/apt.conf.d/90small"
  printf 'path-exclude /usr/share/%s/*\n' doc man info locale lintian >"$root/etc/dpkg/dpkg.cfg.d/90small"
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # nothing is started by being installed
  chmod 755 "$root/usr/sbin/policy-rc.d"
  rm -rf "$root"/usr/share/{doc,man,info,locale,lintian}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb \
    "$root"/etc/{hostname,resolv.conf}
  tar -C "$root" --numeric-owner --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -c . |
    docker import --change "LABEL $label=$(recipe_hash base)" - "$base" >/dev/null
  umount "$root" 2>/dev/null || true
}

# ------------------------------------------------------------------ the recipes: Dockerfiles on standard output

install='RUN export DEBIAN_FRONTEND=noninteractive && apt-get update -q && apt-get install -y -q'
clean='rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/cache/apt/*.bin'

recipe_redis() { # user 999, /data; as root, the entrypoint gives /data to that user and becomes it
  cat <<END
FROM $base
$install redis-server && $clean && usermod -u 999 -d /data redis && groupmod -g 999 redis \\
 && rm -rf /etc/redis /var/lib/redis /var/log/redis && mkdir /data && chown redis:redis /data \\
 && printf '%s\\n' '#!/bin/sh' 'set -e' '[ "\$1" = redis-server ] && [ "\$(id -u)" = 0 ] || exec "\$@"' \\
    'chown -R redis:redis /data' 'exec setpriv --reuid=redis --regid=redis --init-groups "\$@"' \\
    >/usr/local/bin/docker-entrypoint.sh && chmod 755 /usr/local/bin/docker-entrypoint.sh
VOLUME /data
WORKDIR /data
EXPOSE 6379
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server", "--protected-mode", "no"]
END
}

recipe_haproxy() { # user 99, configuration in /usr/local/etc/haproxy, SIGUSR1 ends it softly
  cat <<END
FROM $base
$install haproxy && $clean && groupmod -g 99 haproxy && usermod -u 99 -g 99 haproxy \\
 && mkdir -p /usr/local/etc/haproxy && chown haproxy:haproxy /var/lib/haproxy
USER haproxy
WORKDIR /var/lib/haproxy
STOPSIGNAL SIGUSR1
ENTRYPOINT ["haproxy", "-W", "-db"]
CMD ["-f", "/usr/local/etc/haproxy/haproxy.cfg"]
END
}

recipe_prometheus() { # user nobody, data in /prometheus
  cat <<END
FROM $base
$install prometheus && $clean && rm -rf /usr/share/javascript/moment-timezone && mkdir -p /prometheus && chown nobody:nogroup /prometheus
VOLUME /prometheus
WORKDIR /prometheus
USER nobody
EXPOSE 9090
ENTRYPOINT ["prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
END
}

recipe_redis_exporter() {
  cat <<END
FROM $base
$install prometheus-redis-exporter && $clean
USER 59000:59000
EXPOSE 9121
ENTRYPOINT ["prometheus-redis-exporter"]
END
}

# The toolchain is this machine's own. cargo trusts in it what this machine trusts, to reach the crate registry.
recipe_rust() {
  local sysroot
  sysroot=$(rustc --print sysroot)
  cp "$(readlink -f /etc/ssl/certs/ca-certificates.crt)" ca.crt
  tar -C "$sysroot" --exclude=./share --exclude=./lib/rustlib/src -cf toolchain.tar .
  cat <<END
FROM $base
$install gcc g++ make libc6-dev git && $clean
ADD toolchain.tar /usr/local/
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["bash"]
END
}

recipe_name() {
  case ${1%%:*} in
    redis | haproxy | rust) echo "${1%%:*}" ;;
    prom/prometheus) echo prometheus ;;
    oliver006/redis_exporter) echo redis_exporter ;;
    *) return 1 ;;
  esac
}

recipe_hash() {
  {
    case $1 in
      base) declare -f make_base sources network ;;
      rust) declare -f recipe_rust && echo "$install $clean" && rustc --version ;;
      *) "recipe_$1" ;;
    esac
    if [ "$1" != base ]; then docker image inspect --format '{{.Id}}' "$base"; fi
  } | sha256sum | cut -c 1-16
}

stand_in() { # image recipe
  local directory=$work/$2 began=$SECONDS
  mkdir -p "$directory"
  (cd "$directory" && "recipe_$2" >Dockerfile)
  # The classic builder, since the other asks a registry about the base.
  DOCKER_BUILDKIT=0 docker build --quiet --force-rm --tag "$1" --label "$label=$(recipe_hash "$2")" "$directory" \
    >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; die "$1 could not be built"; }
  rm -rf "$directory"
  say "$1 is a stand-in from Debian's packages, made in $((SECONDS - began)) s"
}

pull=${NO_PULL:+no}
for image in "$@"; do
  # Not made here: pulled or built by somebody who wanted it so.
  if made=$(made_by "$image") && [ -z "$made" ]; then continue; fi
  if [ "$pull" != no ] && [ -z "$made" ]; then
    if timeout 300 docker pull --quiet "$image" >/dev/null 2>"$work/log"; then continue; fi
    say "cannot pull $image: $(head -n 1 "$work/log" | cut -c 1-120)"
    pull=no # nor the others
  fi
  recipe=$(recipe_name "$image") || die "cannot pull $image, and there is no recipe for a stand-in"
  if [ "$(made_by "$base")" != "$(recipe_hash base)" ]; then
    say "making a Debian $suite for the stand-ins"
    scripts/need.sh debootstrap
    make_base
  fi
  if [ "$made" != "$(recipe_hash "$recipe")" ]; then stand_in "$image" "$recipe"; fi
done
