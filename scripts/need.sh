#!/usr/bin/env bash
# Installs what is missing of the named things, saying so in a line each: need.sh cc redis-server venv ...
# System programs come from apt (as root or through sudo); everything else goes into the ignored .cache/.
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
apt_install() {
  local as=()
  has apt-get || die "$* missing, and there is no apt-get: install it by hand"
  if [ "$(id -u)" != 0 ]; then
    { has sudo && sudo -n true 2>/dev/null; } || die "$* missing: run 'apt-get install $*' as root, or give this user sudo"
    as=(sudo -n)
  fi
  say "installing $* with apt-get"
  if [ -z "$apt_updated" ]; then
    "${as[@]}" apt-get update -qq >/dev/null 9>&- || say "apt-get update failed; trying what is known"
    apt_updated=1
  fi
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
    >"$cache/apt.log" 2>&1 9>&- || { tail -n 5 "$cache/apt.log" >&2; die "apt-get could not install $*"; }
}

program() { has "$1" || apt_install "${2:-$1}"; } # program [package]

venv() {
  local list=scripts/requirements.txt stamp=$cache/venv/.installed
  if [ -x "$cache/venv/bin/python" ] && cmp -s "$list" "$stamp"; then return; fi
  program python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
  say "making .cache/venv with $(tr '\n' ' ' <"$list")"
  rm -rf "$cache/venv"
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r "$list"
  cp "$list" "$stamp"
}

node_modules() {
  local wanted="playwright-core@1.65.1" stamp=$cache/node_modules/.installed
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
  program node nodejs
  program npm
  say "installing $wanted into .cache/node_modules"
  PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm install --prefix "$cache" --no-save --no-audit --no-fund --loglevel=error "$wanted" >&2
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
    redis-server | chromium | shellcheck | make | faketime) program "$thing" ;;
    network) program unshare util-linux; program ip iproute2; program iptables ;;
    python) program python3 ;;
    node) program node nodejs ;;
    venv) venv ;;
    node_modules) node_modules ;;
    fmt) component fmt rustfmt ;;
    clippy) component clippy clippy ;;
    cargo-deny) cargo_tool cargo-deny 0.20.2 ;;
    cargo-fuzz) cargo_tool cargo-fuzz 0.13.2 ;;
    *) die "does not know '$thing'" ;;
  esac
done
