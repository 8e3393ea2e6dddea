#!/usr/bin/env bash
# Runs test/e2ecluster, with the flags of go test that are given, on a real cluster with real pods.
#
# With KUBECONFIG set, on that cluster: MILLRACE_E2E_INSTALL is then the install.yaml that names published images, and
# MILLRACE_E2E_PROBE the published image of test/e2ecluster/probe. Otherwise on a node that is started on this machine with
# images of this checkout, and removed at the end. MILLRACE_E2E_KEEP=1 leaves it running.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export MILLRACE_E2E=1
package=./test/e2ecluster

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/command"
go build -trimpath -tags grpcnotrace -o "$work/command/kubectl-millrace" ./cmd/millrace
export MILLRACE_E2E_COMMAND="$work/command"

if [[ -n ${KUBECONFIG:-} ]]; then
  : "${MILLRACE_E2E_INSTALL:?names the install.yaml with the images to test, see make install-yaml}"
  : "${MILLRACE_E2E_PROBE:?names the image of test/e2ecluster/probe}"
  go test -count=1 -timeout 15m "$@" "$package"
  exit
fi

state="${TMPDIR:-/tmp}/millrace-e2e"
hack/kube-node.sh up "$state" >/dev/null
finish() {
  rm -rf "$work"
  [[ -z ${MILLRACE_E2E_KEEP:-} ]] || { echo "the node is left running: hack/kube-node.sh down $state" >&2; return; }
  "$root/hack/kube-node.sh" down "$state"
}
trap finish EXIT

echo "building images" >&2
programs=(./cmd/broker-controller ./cmd/broker-ingress ./cmd/broker-filter ./cmd/broker-source ./test/e2ecluster/probe github.com/nats-io/nats-server/v2)
CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags '-s -w' -o "$work/" "${programs[@]}"
# The names in config/install.yaml, which is applied as it is. That of NATS has the version of go.mod, which a test holds.
nats=$(sed -n 's/^ *image: \(nats:.*\)/\1/p' config/install.yaml)
go -C tools run ./image "$work/images.tar" "millrace.test/probe:1=$work/probe" "$nats=$work/nats-server" \
  millrace/broker-{controller:devel="$work"/broker-controller,ingress:devel="$work"/broker-ingress,filter:devel="$work"/broker-filter,source:devel="$work"/broker-source}
hack/kube-node.sh load "$state" "$work/images.tar"

# Compiled here, because where the cluster can be reached no module can be downloaded.
go test -c -o "$work/e2e.test" "$package"
args=()
for flag in "$@"; do args+=("${flag/#-/-test.}"); done
cd "$package"
MILLRACE_E2E_INSTALL="$root/config/install.yaml" MILLRACE_E2E_PROBE=millrace.test/probe:1 \
  "$root/hack/kube-node.sh" run "$state" "$work/e2e.test" -test.timeout=15m "${args[@]}"
