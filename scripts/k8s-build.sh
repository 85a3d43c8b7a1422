#!/usr/bin/env bash
# Builds what scripts/k8s-test.sh runs, from the Go module registry into .cache/tools/k8s/bin: k8s-build.sh name...
# Each is built once per version named here.
#
# A checkout is not needed: Kubernetes' staging modules, which its go.mod takes from its own tree, are published under
# v0.<minor>.<patch>, and each is replaced by that.
set -euo pipefail
cd "$(dirname "$0")/.."

kubernetes=1.35.4 # the last whose kubelet takes both control groups v1 and Debian's containerd 1.6
kwok=0.7.0
adapter=0.12.0

here=$PWD/scripts
out=$PWD/.cache/tools/k8s
mkdir -p "$out/bin"
say() { echo "k8s-build: $*" >&2; }

# One run at a time: the second would clear away what the first builds with.
exec 9>"$out/lock"
! command -v flock >/dev/null || flock 9

export CGO_ENABLED=0 GOFLAGS="-p=2 -mod=mod" GOWORK=off GOCACHE=$out/gocache
unset GOOS GOARCH

# One module for all, so that what they share is compiled once: Kubernetes' own requirements, as it was tested with them,
# and its companions moved to its version of the libraries.
module() {
  local mod name
  rm -rf "$out/src"
  mkdir -p "$out/src"
  cd "$out/src"
  go mod init roomcast.test/k8s >/dev/null 2>&1
  mod=$(go mod download -json "k8s.io/kubernetes@v$kubernetes" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
  sed -e 's/^module .*/module roomcast.test\/k8s/' -e '/^replace/,$d' "$mod" >go.mod
  awk '$1 ~ /^k8s.io\// && $2 == "v0.0.0" { print $1 }' "$mod" | while read -r name; do
    go mod edit -replace "$name=$name@v0.${kubernetes#1.}"
  done
  go mod edit -require "k8s.io/kubernetes@v$kubernetes" -require "sigs.k8s.io/kwok@v$kwok" \
    -require "sigs.k8s.io/prometheus-adapter@v$adapter" \
    -require "sigs.k8s.io/custom-metrics-apiserver@v1.$(cut -d. -f2 <<<"$kubernetes").0"
  patched
}

# What in the companions does not fit the libraries of today. In kwok: a constant that is gone. In the adapter, which is of
# 2024: a channel in place of a context, the names of its API's models, and the time left of a request, of which it takes
# the negative (no harm while requests had no deadline).
patched() {
  copied "sigs.k8s.io/kwok" "$kwok"
  sed -i 's/metav1.InitialEventsListBlueprintAnnotationKey/"kubernetes.io\/initial-events-list-blueprint"/' kwok/pkg/utils/informer/informer.go
  copied "sigs.k8s.io/prometheus-adapter" "$adapter"
  cp "$here/k8s/definitions.go" prometheus-adapter/cmd/adapter/
  sed -i -e 's/stopCh := genericapiserver.SetupSignalHandler()/ctx := genericapiserver.SetupSignalContext(); stopCh := ctx.Done()/' \
    -e 's/cmd\.Run(stopCh)/cmd.Run(ctx)/' -e '/^\tgeneratedopenapi /d' -e 's/generatedopenapi.GetOpenAPIDefinitions/definitions/' \
    prometheus-adapter/cmd/adapter/adapter.go
  sed -i 's/time.Since(deadline)/time.Until(deadline)/' prometheus-adapter/pkg/client/api.go
}

copied() { # module version: a copy of its own that may be changed
  local source
  source=$(go mod download -json "$1@v$2" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
  cp -r --no-preserve=mode "$source" "${1##*/}"
  go mod edit -replace "$1=./${1##*/}"
}

# compile PROGRAM: without debug information, which nobody reads here.
compile() {
  local package version=k8s.io/component-base/version
  case $1 in
    kwok) package=sigs.k8s.io/kwok/cmd/kwok ;;
    adapter) package=sigs.k8s.io/prometheus-adapter/cmd/adapter ;;
    *) package=k8s.io/kubernetes/cmd/$1 ;;
  esac
  say "building $1 $(version "$1") (once)"
  (
    cd "$out/src"
    # Without gitVersion the API server would not say which Kubernetes it is, and no chart's kubeVersion would fit.
    nice -n 19 go build -gcflags=all=-dwarf=false -o "$out/bin/" -ldflags "-s -w -X $version.gitVersion=v$kubernetes
      -X $version.gitMajor=1 -X $version.gitMinor=$(cut -d. -f2 <<<"$kubernetes") -X $version.gitTreeState=clean" "$package"
  )
}

version() { # program
  case $1 in kwok) echo $kwok ;; adapter) echo $adapter ;; *) echo $kubernetes ;; esac
}

missing=() built=
for name in "$@"; do
  [ "$(cat "$out/bin/.$name" 2>/dev/null)" = "$(version "$name")" ] || missing+=("$name")
done
for name in "${missing[@]}"; do
  case $name in
    kwok | adapter | kubectl | kubelet | kube-*)
      [ -n "$built" ] || module
      built=1
      compile "$name"
      ;;
    *) say "does not know '$name'" && exit 1 ;;
  esac
  version "$name" >"$out/bin/.$name"
done
# A gigabyte or two of objects, of no use once the programs are there.
[ -z "$built" ] || rm -rf "$out/gocache" "$out/src"
