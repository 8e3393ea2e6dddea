#!/usr/bin/env bash
# Fails when the generated files are not what the sources say (it writes them into a temporary folder and compares), or
# when an API server would refuse the CRDs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

"$root/hack/generate.sh" "$fresh"
"$root/hack/install-yaml.sh" "$fresh/config/install.yaml"

stale=0
for generated in "$root"/api/*/v*/zz_generated.deepcopy.go; do
  diff -u "$generated" "$fresh/${generated#"$root"/}" || stale=1
done
diff -ru -x kustomization.yaml "$root/config/crds" "$fresh/config/crds" || stale=1
diff -ru "$root/charts/millrace/files" "$fresh/charts/millrace/files" || stale=1
diff -u "$root/config/install.yaml" "$fresh/config/install.yaml" || stale=1

go -C "$root" test ./internal/app -run '^TestMetricsReference$' || stale=1

if [[ $stale -ne 0 ]]; then
  echo "hack/verify.sh: the generated files above are stale; run make generate install-yaml and commit the result" >&2
  exit 1
fi
go -C "$root/tools" run ./crdcheck "$root"/config/crds/*.dev_*.yaml
echo "generated files are up to date, and the CRDs are valid"
