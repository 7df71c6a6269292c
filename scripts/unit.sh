#!/bin/bash
# Builds and runs the native unit tests: plain, under ASan+UBSan and under TSan.
#   scripts/unit.sh [--plain | --sanitizers] [NAME...]
#                   --plain, --sanitizers: the first variant only, all but the first
#                   NAME: only these programs (mount_table_test)
# One line per program and variant, the output of those that fail, and last `N passed, N failed`; exit 1 on failure.
# JOBS=n sets the build's parallelism, POLY_SEED=n repeats a random test.
set -u
cd "$(dirname "$0")/.." || exit 2

timeout_seconds=300
jobs=${JOBS:-$(nproc)}
variants=(plain asan tsan)
names=()
for argument in "$@"; do
  case $argument in
    --plain) variants=(plain) ;;
    --sanitizers) variants=(asan tsan) ;;
    -h | --help)
      sed -n '2,7s/^# //p' "$0"
      exit 0
      ;;
    -*)
      echo "unit.sh: unknown option $argument" >&2
      exit 2
      ;;
    *) names+=("$argument") ;;
  esac
done
if [ ${#names[@]} -eq 0 ]; then
  for source in test/unit/*_test.cpp; do names+=("$(basename "$source" .cpp)"); done
fi
for name in "${names[@]}"; do
  if [ ! -f "test/unit/$name.cpp" ]; then
    echo "unit.sh: no test/unit/$name.cpp" >&2
    exit 2
  fi
done

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
# By default every process lingers a second at its end, and the tests fork hundreds; children start threads, too.
export TSAN_OPTIONS=${TSAN_OPTIONS:-atexit_sleep_ms=20 die_after_fork=0}

passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# directory, SANITIZE value. Fails only when CMake does; what does not compile is found missing by run_one.
build() {
  cmake -S . -B "$1" -G Ninja -DSANITIZE="$2" >"$log" 2>&1 || return 1
  for name in "${names[@]}"; do rm -f "$1/test/unit/$name.failed"; done
  ninja -C "$1" -j "$jobs" -k 0 poly-keeper "${names[@]}" >"$log" 2>&1 && return 0
  for name in "${names[@]}"; do
    # Ask for each alone: an old program must not stand for one that no longer builds.
    ninja -C "$1" -j "$jobs" poly-keeper "$name" >/dev/null 2>&1 || : >"$1/test/unit/$name.failed"
  done
  grep -E 'error|FAILED|undefined reference|unknown target' "$log" | head -40
  return 0
}

# Sanitizers want the address space as they know it: without randomisation.
run_program() {
  if [ "$1" = plain ]; then
    timeout -k 5 "$timeout_seconds" "$2"
  else
    timeout -k 5 "$timeout_seconds" setarch -R "$2"
  fi >"$log" 2>&1 </dev/null
}

# variant, build directory, test name
run_one() {
  local begin=$SECONDS status=0 result
  if [ -e "$2/test/unit/$3.failed" ] || [ ! -x "$2/test/unit/$3" ]; then
    result='FAILED: does not build'
    : >"$log"
  else
    run_program "$1" "$2/test/unit/$3" || status=$?
    case $status in
      0) result="ok ($(tail -n 1 "$log"), $((SECONDS - begin)) s)" ;;
      124 | 137) result="FAILED: still running after $timeout_seconds s" ;;
      *) result="FAILED: exit status $status" ;;
    esac
  fi
  printf '%-6s %-28s %s\n' "$1" "$3" "$result"
  case $result in
    ok*) passed=$((passed + 1)) ;;
    *)
      failed=$((failed + 1))
      tail -n 60 "$log" | sed 's/^/    /'
      ;;
  esac
}

for variant in "${variants[@]}"; do
  case $variant in
    plain) directory=build/native sanitize= ;;
    asan) directory=build/asan sanitize=address ;;
    tsan) directory=build/tsan sanitize=thread ;;
  esac
  if ! build "$directory" "$sanitize"; then
    cat "$log"
    printf '%-6s FAILED: cmake\n' "$variant"
    failed=$((failed + ${#names[@]}))
    continue
  fi
  for name in "${names[@]}"; do run_one "$variant" "$directory" "$name"; done
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
