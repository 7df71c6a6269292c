#!/bin/bash
# npm run bench -- [NAMES] [--json FILE] [--rounds N] [--quick]: see --help. Builds first; the bench programs are part of the build.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

for arg in "$@"; do
  if [[ $arg == -h || $arg == --help ]] && [[ -f dist/test/bench/run.js ]]; then
    exec node dist/test/bench/run.js --help
  fi
done
bash scripts/build.sh >&2
exec node dist/test/bench/run.js "$@"
