#!/usr/bin/env bash
# Builds the native half into build/native and the TypeScript half into dist. Quick when nothing has changed.
#   scripts/build.sh [--product]
#     --product: without the native programs of tests and benchmarks, which take most of the time
set -euo pipefail
targets=(all)
case ${1:-} in
  '') ;;
  --product) targets=(polytropon poly-keeper poly-preload) ;;
  *) echo "build.sh: unknown option $1" >&2 && exit 2 ;;
esac
cd "$(dirname "$0")/.."
cmake -S . -B build/native -G Ninja >/dev/null
ninja -C build/native --quiet "${targets[@]}"
npx --no-install tsc -p tsconfig.json
