# Sourced by test.sh: runs steps with a time limit and a log each, counts their tests, and cleans up after each.
# Needs lib.sh. Every process of a run carries POLY_TEST_RUN=<id> in its environment, and every temporary file and mount
# is below TMPDIR: that is how leftovers are found, and nothing else is touched.

passed=0
failed=0
skipped=0

# steps_begin LOG_DIRECTORY
steps_begin() {
  logs=$1
  rm -rf "$logs"
  mkdir -p "$logs"
  # Short: unix sockets with paths below it must fit into 107 bytes. Searchable: tests act as other users in it.
  TMPDIR=$(mktemp -d /tmp/polytest.XXXXXX)
  chmod 755 "$TMPDIR"
  export TMPDIR
  export POLY_TEST_RUN=$$-$RANDOM
  unset POLY_RUN_DIR
  checkout=$(fingerprint)
  echo "checkout $checkout" >"$logs/passed"
  trap steps_clean EXIT
  trap 'exit 130' INT TERM HUP
}

# What is tested: the commit and what differs from it. Empty where git does not tell.
fingerprint() {
  local files
  files=$(git -C "$root" rev-parse HEAD 2>/dev/null && git -C "$root" diff HEAD &&
    git -C "$root" ls-files --others --exclude-standard) || return 0
  sha256sum <<<"$files" | cut -d' ' -f1
}

# proven NAME DIRECTORY: the step has passed in the run whose logs are there, and on this very checkout.
proven() {
  [ -n "$checkout" ] && [ -f "$2/passed" ] && [ "$(head -n 1 "$2/passed")" = "checkout $checkout" ] &&
    grep -qxF -- "step $1" "$2/passed"
}

# Ends the processes and takes away the mounts and files that steps have left.
steps_clean() {
  end_processes "POLY_TEST_RUN=$POLY_TEST_RUN"
  release_mounts "$TMPDIR"
  # Never into a mount that could not be taken away.
  rm -rf --one-file-system "$TMPDIR"
}

# run_limited SECONDS LOG COMMAND...: 124 when time was up. A process that waits for a dead mount cannot be killed, and
# timeout(1) would wait for it: then the mount goes first.
run_limited() {
  local seconds=$1 log=$2 deadline pid status=0
  shift 2
  deadline=$((SECONDS + seconds + 15))
  timeout -k 10 "$seconds" "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      end_processes "POLY_TEST_RUN=$POLY_TEST_RUN"
      release_mounts "$TMPDIR"
      deadline=$((SECONDS + 30))
    fi
    sleep 0.1
  done
  wait "$pid" || status=$?
  [ "$status" -ne 137 ] || status=124
  return "$status"
}

# tally LOG: "passed failed skipped" from the last line `N passed, N failed[, N skipped]`, or from TAP lines.
tally() {
  awk '
    /^ *[0-9]+ passed, [0-9]+ failed/ {
      said = 1; p = $1; f = $3; s = ($6 ~ /^skipped/) ? $5 : 0
    }
    /^ok / { if (/# (SKIP|TODO)/) ts++; else tp++ }
    /^not ok / { if (/# TODO/) ts++; else tf++ }
    END { if (said) print p + 0, f + 0, s + 0; else print tp + 0, tf + 0, ts + 0 }' "$1"
}

# step NAME SECONDS COMMAND...: one line, and what failed. A step that counts no tests is one test itself. Where
# POLY_TEST_DEADLINE (seconds since the epoch) says when all must be over, a step it cuts short is skipped, not failed.
step() {
  local name=$1 seconds=$2 log begin=$SECONDS status=0 p f s verdict left cut=
  shift 2
  if [ -n "${POLY_TEST_DEADLINE:-}" ]; then
    left=$((POLY_TEST_DEADLINE - $(date +%s)))
    if [ "$left" -lt 30 ]; then
      skip_step "$name" 'no time is left for it'
      return 0
    fi
    if [ "$left" -lt "$seconds" ]; then seconds=$left cut=1; fi
  fi
  log=$logs/$(tr -c 'a-zA-Z0-9\n' '-' <<<"$name").log
  run_limited "$seconds" "$log" "$@" || status=$?
  read -r p f s < <(tally "$log")
  if [ "$status" -eq 124 ] && [ "$f" -eq 0 ] && [ -n "$cut" ]; then
    s=$((s + 1))
  elif [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
    f=1
  fi
  if [ $((p + f + s)) -eq 0 ]; then p=1; fi
  verdict=$([ "$f" -eq 0 ] && echo ok || echo FAIL)
  printf '%-5s %-28s %5d passed, %d failed%-14s %4d s\n' "$verdict" "$name" "$p" "$f" \
    "$([ "$s" -eq 0 ] || echo ", $s skipped")" $((SECONDS - begin))
  if [ "$f" -gt 0 ]; then
    [ "$status" -ne 124 ] || echo "      still running after $seconds s"
    failures "$log" | cut -c1-200 | sed 's/^/      /'
    echo "      see $log"
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  end_processes "POLY_TEST_RUN=$POLY_TEST_RUN"
  release_mounts "$TMPDIR"
  [ "$f" -eq 0 ] || return 1
  [ "$status" -ne 0 ] || echo "step $name" >>"$logs/passed"
}

# failures LOG: what failed, by name and with its reason, as each kind of step tells it; the end of the log where none
# does (a program that died, a time limit).
failures() {
  local named
  named=$(awk '
    # TAP (ava): a test, and the block of its error. Its own output may say anything, in comments.
    /^TAP version/ { tap = 1 }
    tap && /^not ok / && !/# TODO/ { print; block = 15; next }
    tap && /^ *\.\.\.$/ { block = 0 }
    tap { if (block > 0 && /[^ ]/ && !/^ *---$/) { print; block-- } next }
    # poly-conformance, with the pair in front where scripts/conformance.sh runs it; further reasons follow a "!".
    /^([a-z]+:[a-z]+ )?(FAIL| +!) / { print; next }
    # scripts/unit.sh: a program, and of its output what says why.
    /^(plain|asan|tsan) .*FAILED/ { print; block = 12; next }
    /^[^ ]/ { block = 0 }
    block > 0 && /failed|cannot go on|ERROR|WARNING|runtime error/ { print; block-- }' "$1" | tr -d '\0')
  if [ -n "$named" ]; then head -n 60 <<<"$named"; else tail -n 15 "$1"; fi
}

# skip_step NAME WHY
skip_step() {
  printf '%-5s %-28s %s\n' skip "$1" "$2"
  skipped=$((skipped + 1))
}

# steps_end: the last line, and the exit status.
steps_end() {
  local tail=''
  [ "$skipped" -eq 0 ] || tail=", $skipped skipped"
  echo "$passed passed, $failed failed$tail"
  [ "$failed" -eq 0 ]
}
