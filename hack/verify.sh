#!/usr/bin/env bash
# Fails when the generated files are not what the sources say (it writes them into a temporary folder and compares), or
# when an API server would refuse the CRDs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

"$root/hack/generate.sh" "$fresh"

stale=0
diff -u "$root/api/eventing/v1/zz_generated.deepcopy.go" "$fresh/api/eventing/v1/zz_generated.deepcopy.go" || stale=1
diff -ru "$root/config/crds" "$fresh/config/crds" || stale=1

if [[ $stale -ne 0 ]]; then
  echo "hack/verify.sh: the generated files above are stale; run hack/generate.sh (make generate) and commit the result" >&2
  exit 1
fi
go -C "$root/tools" run ./crdcheck "$root"/config/crds/*.yaml
echo "generated files are up to date, and the CRDs are valid"
