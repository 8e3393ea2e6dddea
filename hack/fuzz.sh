#!/usr/bin/env bash
# Runs every fuzz target of the given packages, one after another, and fails if one of them finds a failing input.
#
#   hack/fuzz.sh [fuzztime] [package...]      defaults: 10s ./...
set -euo pipefail

fuzztime="${1:-10s}"
shift || true
packages=("${@:-./...}")

# `go test -list` prints the names of a package's targets and then a line "ok <package> <time>".
listing=$(go test -list '^Fuzz' "${packages[@]}") || { echo "$listing"; exit 1; }
mapfile -t targets < <(awk '/^Fuzz/ { names[n++] = $1 }
  /^ok/ { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }' <<<"$listing")

# only_deadline tells whether a failed run failed by nothing but its own end: before Go 1.27 the fuzzing coordinator
# may report the deadline of -fuzztime as a failure (https://go.dev/issue/75804). A real finding says more than that.
only_deadline() {
  grep -q '^    context deadline exceeded$' "$1" && ! grep -qE 'Failing input written|^panic:|_test\.go:[0-9]+:' "$1"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()
for i in "${!targets[@]}"; do
  read -r package name <<<"${targets[i]}"
  echo "[$((i + 1))/${#targets[@]}] $name $package"
  if go test -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" "$package" 2>&1 | tee "$log"; then
    continue
  elif only_deadline "$log"; then
    echo "no failing input: the run ended at its deadline"
  else
    failed+=("$name $package")
  fi
done

echo "fuzzed ${#targets[@]} targets for $fuzztime each, ${#failed[@]} failed"
if ((${#failed[@]} > 0)); then
  printf 'failed: %s\n' "${failed[@]}"
  exit 1
fi
