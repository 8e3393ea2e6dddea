#!/usr/bin/env bash
# Compares the Go benchmarks of the checkout with those of another commit, by benchstat. The two take turns, run by run, so
# that a machine that gets slower meanwhile does so for both.
#
#   hack/bench-compare.sh BASE BENCH BENCHTIME COUNT PACKAGE...
set -euo pipefail

base=$1 bench=$2 benchtime=$3 count=$4
shift 4
root=$(git rev-parse --show-toplevel)
cd "$root"
dir=$(mktemp -d)
trap 'git worktree remove --force "$dir/base" 2>/dev/null || true; rm -rf "$dir"' EXIT
git worktree add --quiet --detach "$dir/base" "$base"

benchstat=$(go -C tools tool -n benchstat)
for i in $(seq "$count"); do
  for side in base new; do
    echo "run $i of $count: $side" >&2
    from=$root
    [[ $side == base ]] && from=$dir/base
    # A package that the other commit lacks fails to run; benchstat then shows one side alone.
    (cd "$from" && go test -run '^$' -bench "$bench" -benchtime "$benchtime" -benchmem "$@") >>"$dir/$side.txt" 2>"$dir/err" ||
      { cat "$dir/err" >&2; grep -E '^(---|FAIL)' "$dir/$side.txt" >&2 || true; }
  done
done
"$benchstat" "$base=$dir/base.txt" "new=$dir/new.txt"
