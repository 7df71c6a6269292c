#!/bin/bash
# Formats the native sources with clang-format and everything else with prettier.
#   scripts/format.sh [--check]      --check: changes nothing, names what is not formatted (clang-format only)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"

# Files that are committed or about to be, not what lies around.
native_sources() {
  git ls-files -z --cached --others --exclude-standard -- '*.cpp' '*.hpp' '*.c' '*.h' |
    xargs -0 -r ls -d 2>/dev/null || true
}

mapfile -t sources < <(native_sources)
[ ${#sources[@]} -gt 0 ] || exit 0
if [ "${1:-}" = --check ]; then
  clang-format --dry-run --Werror "${sources[@]}" 2>&1 |
    awk -F: '/code should be clang-formatted/ { lines[$1]++ }
      END { for (file in lines) { print file ": " lines[file] " places are not formatted"; bad = 1 } exit bad }'
else
  clang-format -i "${sources[@]}"
  npx --no-install prettier --write --log-level warn .
fi
