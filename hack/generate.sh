#!/usr/bin/env bash
# Writes the generated files: the deepcopy functions of api/, the CRDs under config/crds/, docs/metrics.md, and what the Helm
# chart ships as it is in config/.
#
#   hack/generate.sh           writes them into the checkout
#   hack/generate.sh FOLDER    writes them below FOLDER, at the paths they have in the checkout
#
# The generator is pinned in tools/go.mod, a module of its own, so that what it needs stays out of the product's go.mod.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "${1:-$root}"
out=$(cd "${1:-$root}" && pwd)
cd "$root"

generator=$(go -C tools tool -n controller-gen)
mkdir -p "$out/config/crds"

# Deepcopy first: it is what makes the types whole, and the CRDs are read from them.
for package in api/*/v*; do
  mkdir -p "$out/$package"
  "$generator" object paths="./$package" output:object:dir="$out/$package"
done
"$generator" crd paths=./api/... output:crd:dir="$out/config/crds"

files="$out/charts/millrace/files"
mkdir -p "$files"
kustomize() { go -C tools tool kustomize build "$root/$1"; }
kustomize config/crds >"$files/crds.yaml"
kustomize config/admission >"$files/broker-class.yaml"
kustomize config/defaults >"$files/defaults.yaml"
cp config/defaults/class.yaml "$files/default-class.yaml"
roles=(config/*/rbac.yaml config/system/user-roles.yaml config/system/connect.yaml)
{
  cat "${roles[0]}"
  for role in "${roles[@]:1}"; do
    echo ---
    cat "$role"
  done
} >"$files/rbac.yaml"

# The reference of the metrics is written, and held to the code, by a test.
if [[ $out == "$root" ]]; then
  go test -count=1 ./internal/app -run '^TestMetricsReference$' -update >/dev/null
fi
