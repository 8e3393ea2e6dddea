#!/usr/bin/env bash
# Builds the images of all programs for linux/amd64 and linux/arm64 with ko, and pushes them.
#
#   hack/images.sh PREFIX TAG [PROGRAM...]
#
# They are PREFIX/broker-ingress:TAG and so on, each with an SPDX list of what is in it, in the registry beside the image and
# below bin/sbom. Nothing of this machine is in them but the Go toolchain's output, and they carry the time of the commit: the
# same commit, toolchain and base give the same digests. The base is a tag that moves; name one by digest in
# KO_DEFAULTBASEIMAGE to hold it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
(($# >= 2)) || { echo "usage: hack/images.sh PREFIX TAG [PROGRAM...]" >&2; exit 2; }
prefix=$1 tag=$2
shift 2
programs=("$@")
((${#programs[@]} > 0)) || programs=($(cd cmd && ls))

revision=$(git rev-parse HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
# What is not committed has no revision, so the images say that they have none.
[[ -z $(git status --porcelain) ]] || revision="$revision-dirty"
export SOURCE_DATE_EPOCH KO_DOCKER_REPO=$prefix
export KO_DEFAULTBASEIMAGE=${KO_DEFAULTBASEIMAGE:-gcr.io/distroless/static-debian13:nonroot}
# A go.work or flags of the caller's must not change what is built. The Makefile says what the tag is for.
export GOWORK=off GOFLAGS='-buildvcs=false -tags=grpcnotrace'

ko=$(go -C tools/ko tool -n ko)
for program in "${programs[@]}"; do
  [[ -d cmd/$program ]] || { echo "hack/images.sh: there is no cmd/$program" >&2; exit 2; }
  # One by one, so that the title is the program's.
  "$ko" build --base-import-paths --platform linux/amd64,linux/arm64 --tags "$tag" --image-user 65532 \
    --ldflags "-s -w -X millrace.dev/internal/version.linked=$tag" --sbom spdx --sbom-dir bin/sbom \
    --image-label "org.opencontainers.image.title=$program,org.opencontainers.image.version=$tag" \
    --image-label "org.opencontainers.image.revision=$revision,org.opencontainers.image.licenses=Apache-2.0" \
    "./cmd/$program"
done
