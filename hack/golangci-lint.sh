#!/usr/bin/env bash
# Runs golangci-lint with the given arguments, and first builds the pinned version from source if it is not there yet.
# It lives outside the checkout, a folder for each version and Go toolchain, because a linter built by an older Go
# cannot read the code of a newer one.
set -euo pipefail

version=v2.15.0

dir="${XDG_CACHE_HOME:-$HOME/.cache}/millrace/golangci-lint-$version-$(go env GOVERSION)"
if [[ ! -x "$dir/golangci-lint" ]]; then
  echo "building golangci-lint $version into $dir (once; takes some minutes)" >&2
  # GOFLAGS is emptied because -mod, when set there, breaks installing another module's program.
  GOFLAGS='' GOBIN="$dir" go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
fi
exec "$dir/golangci-lint" "$@"
