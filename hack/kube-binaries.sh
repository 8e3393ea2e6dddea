#!/usr/bin/env bash
# Prints the folder that holds etcd, kube-apiserver and kubectl, and first builds them from source if they are not there
# yet. Their versions and checksums are pinned in tools/kube/go.mod and go.sum. They live outside the checkout, a folder
# for each version and Go toolchain.
#
#   hack/kube-binaries.sh         what an API server needs
#   hack/kube-binaries.sh node    also the rest of a cluster: controllers, scheduler, kubelet, kube-proxy and CoreDNS
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# A go.work or flags of the caller's must not change what is built.
export GOWORK=off GOFLAGS='' CGO_ENABLED=0

version=$(go -C "$root/tools/kube" list -m -f '{{.Version}}' k8s.io/kubernetes)
dir="${XDG_CACHE_HOME:-$HOME/.cache}/millrace/kube-$version-$(go env GOVERSION)"
mkdir -p "$dir"

# Test packages run side by side: one builds, the others wait for it.
if command -v flock >/dev/null; then
  exec 9>"$dir/.lock"
  flock 9
fi

# build PROGRAM PACKAGE [LDFLAGS [MODULE]]
build() {
  [[ ! -x "$dir/$1" ]] || return 0
  echo "building $1 into $dir (once; some minutes)" >&2
  local start=$SECONDS
  if ! go -C "$root/tools/${4:-kube}" build -trimpath -ldflags "-s -w ${3:-}" -o "$dir/$1.new" "$2" >&2; then
    echo "hack/kube-binaries.sh: cannot build $1: see above; Go modules must be downloadable, and it needs about 4 GB of memory" >&2
    exit 1
  fi
  mv "$dir/$1.new" "$dir/$1"
  echo "built $1 after $((SECONDS - start)) s" >&2
}

# Without these a server takes itself for version 0.0 and refuses to start.
minor=${version#v1.}
linked="k8s.io/component-base/version"
stamp="-X $linked.gitVersion=$version -X $linked.gitMajor=1 -X $linked.gitMinor=${minor%%.*}"
build etcd go.etcd.io/etcd/server/v3
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "$stamp"
build kubectl k8s.io/kubernetes/cmd/kubectl "$stamp"
if [[ ${1:-} == node ]]; then
  for program in kube-controller-manager kube-scheduler kubelet kube-proxy; do
    build "$program" "k8s.io/kubernetes/cmd/$program" "$stamp"
  done
  # A module of its own, because it needs other versions of what the others are built with.
  coredns=$(go -C "$root/tools/coredns" list -m -f '{{.Version}}' github.com/coredns/coredns)
  build "coredns-$coredns" . "" coredns
  ln -sf "coredns-$coredns" "$dir/coredns"
fi
echo "$dir"
