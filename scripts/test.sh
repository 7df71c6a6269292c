#!/bin/bash
# npm test: installs what is missing, builds, and runs the tests: lint, native unit tests, the conformance suite, and
# everything ava finds below test/. npm run test:full (--full) runs the long suites, too (POLY_TEST_FULL=1).
#   scripts/test.sh [--full [--rest]] [STEP...]
#     --rest: of the full run only what the last quick run has not proven already, on this very checkout
#     STEP:   only steps whose names begin so ("unit", "ava test/server")
# One line per step; the logs are in build/test-logs. Ends with `N passed, N failed`; status 1 when something failed.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lib_steps.sh"
cd "$root" || exit 1

full=
rest=
only=()
for argument in "$@"; do
  case $argument in
    --full) full=1 ;;
    --rest) rest=1 ;;
    -h | --help) sed -n '2,7s/^# //p' "$0" && exit 0 ;;
    -*) die "unknown option $argument" ;;
    *) only+=("$argument") ;;
  esac
done
[ -z "$rest" ] || [ -n "$full" ] || die '--rest goes with --full'
quick_logs=$root/build/test-logs/quick
unset POLY_TEST_FULL
[ -z "$full" ] || export POLY_TEST_FULL=1

wanted() {
  [ ${#only[@]} -gt 0 ] || return 0
  local prefix
  for prefix in "${only[@]}"; do [[ $1 != "$prefix"* ]] || return 0; done
  return 1
}

# known NAME: need not be run, as the quick run has just done it, and the full run would do the same.
known() {
  [ -n "$rest" ] && wanted "$1" && proven "$1" "$quick_logs"
}

# try NAME SECONDS COMMAND...: a step, if it was asked for; those after it run even when it fails.
try() {
  if wanted "$1"; then step "$@" || true; fi
}

# try_new: the same for a step that both runs have alike.
try_new() {
  if known "$1"; then say "      $1: passed in npm test, not repeated"; else try "$@"; fi
}

# must NAME SECONDS COMMAND...: without it nothing else can run.
must() {
  step "$@" && return 0
  steps_end
  exit 1
}

lint_steps() {
  try_new 'lint eslint' 180 npx --no-install eslint .
  try_new 'lint prettier' 120 npx --no-install prettier --check --log-level warn .
  try_new 'lint clang-format' 60 bash scripts/format.sh --check
}

conformance_steps() {
  if [ "$(id -u)" -eq 0 ]; then
    try_new 'conformance fuse memory' 300 bash scripts/conformance.sh fuse:memory
    try_new 'conformance fuse local' 300 bash scripts/conformance.sh fuse:local
    try_new 'conformance fast memory' 300 bash scripts/conformance.sh fast:memory
    try_new 'conformance fast local' 300 bash scripts/conformance.sh fast:local
  fi
  try_new 'conformance user memory' 300 bash scripts/conformance.sh user:memory
  try_new 'conformance user local' 300 bash scripts/conformance.sh user:local
}

unit_steps() {
  if [ -z "$full" ]; then
    try 'unit' 600 bash scripts/unit.sh --plain
  elif known 'unit'; then
    say '      unit: without sanitizers passed in npm test, not repeated'
    try 'unit' 1500 bash scripts/unit.sh --sanitizers
  else
    try 'unit' 1500 bash scripts/unit.sh
  fi
}

# Of a folder's test files those that do more in the full run: who asks for that imports `full`, or the application
# tests' place, which does.
long_tests() {
  grep -lE '^import .*\b(full|applicationTest)\b|^  (full|applicationTest),$|POLY_TEST_FULL' "$1"/*.test.ts
}

# The Ceph packages that are missing, said once per step; true: none is.
ceph_is_there() {
  local absent
  absent=$(bash scripts/ceph-cluster.sh missing) && return 0
  skip_step "$1" "Debian packages are missing: $absent"
  return 1
}

# A cluster answers in a millisecond what memory answers in microseconds: most of it is for the long run.
ceph_steps() {
  if [ "$(id -u)" -eq 0 ] && wanted 'conformance fuse ceph' && ceph_is_there 'conformance fuse ceph'; then
    [ -n "$full" ] || export POLY_CONFORMANCE='--filter rename --filter append --filter unlinked --filter truncate'
    try 'conformance fuse ceph' 600 bash scripts/conformance.sh fuse:ceph
    unset POLY_CONFORMANCE
  fi
  if [ -n "$full" ] && [ "$(id -u)" -eq 0 ] && wanted 'conformance fast ceph' && ceph_is_there 'conformance fast ceph'; then
    try 'conformance fast ceph' 600 bash scripts/conformance.sh fast:ceph
  fi
  if [ -n "$full" ] && wanted 'ava test/ceph' && ceph_is_there 'ava test/ceph'; then
    try 'ava test/ceph' 900 env -u POLY_TEST_FULL npx --no-install ava --tap 'test/ceph/*.test.ts'
  fi
}

# A step per folder that holds tests; quick limits, and more for the long suites.
ava_steps() {
  local folder files
  for folder in test/*/; do
    folder=${folder%/}
    compgen -G "$folder/*.test.ts" >/dev/null && [ "$folder" != test/ceph ] || continue
    files=("$folder/*.test.ts")
    if known "ava $folder"; then
      mapfile -t files < <(long_tests "$folder")
      if [ ${#files[@]} -eq 0 ]; then
        say "      ava $folder: passed in npm test, not repeated"
        continue
      fi
      [ "${#files[@]}" -eq "$(compgen -G "$folder/*.test.ts" | wc -l)" ] ||
        say "      ava $folder: passed in npm test, not repeated but for what has a longer variant: ${files[*]##*/}"
    fi
    try "ava $folder" $((${full:-0} ? 2700 : 900)) npx --no-install ava --tap "${files[@]}"
  done
}

say "$([ -n "$full" ] && echo 'all tests, the long ones, too' || echo 'quick tests'), logs in build/test-logs/$([ -n "$full" ] && echo full || echo quick)"
steps_begin "$root/build/test-logs/$([ -n "$full" ] && echo full || echo quick)"
must 'set-up' 900 bash scripts/setup.sh --test
must 'build' 900 bash scripts/build.sh
lint_steps
unit_steps
conformance_steps
ava_steps
ceph_steps
steps_end
