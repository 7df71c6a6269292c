#!/usr/bin/env bash
# Builds the native half into build/native and the TypeScript half into dist. Quick when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake -S . -B build/native -G Ninja >/dev/null
ninja -C build/native --quiet
npx --no-install tsc -p tsconfig.json
