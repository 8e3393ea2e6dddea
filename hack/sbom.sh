#!/usr/bin/env bash
# Lists the modules in programs, as they are recorded there, as CycloneDX documents. It needs no network.
#
#   hack/sbom.sh FOLDER VERSION PROGRAM...
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
(($# >= 3)) || { echo "usage: hack/sbom.sh FOLDER VERSION PROGRAM..." >&2; exit 2; }
folder=$1 version=$2
shift 2

mkdir -p "$folder"
cyclonedx=$(GOFLAGS='' go -C "$root/tools/sbom" tool -n cyclonedx-gomod)
for program in "$@"; do
  # Without number and time, so that the same program has the same list.
  "$cyclonedx" bin -json -noserial -notimestamp -version "$version" -output "$folder/$(basename "$program").cdx.json" "$program"
done
