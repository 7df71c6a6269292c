#!/bin/bash
# Runs the conformance suite (test/conformance) over mounts of this checkout, each with a daemon of its own:
#   scripts/conformance.sh [FRONT-END:LIBSERVICE]...     default: all that can run here
# Front ends: fuse (as we are), user (fusermount3, as an ordinary user), fast (as fuse, the suite under `poly run`; not in
# the default). Libservices: memory, local, ceph (a cluster of our own, scripts/ceph-cluster.sh; not in the default).
# Ends with `N passed, N failed, N skipped`. POLY_CONFORMANCE holds more options for poly-conformance.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

program=$root/build/native/test/conformance/poly-conformance
top=$(mktemp -d "${TMPDIR:-/tmp}/conf.XXXXXX")
chmod 755 "$top"
nobody=65534
# In front of the commands that act for the user whose mount it is.
as=()
trap clean EXIT

clean() {
  local directory
  for directory in "$top"/*/run; do
    [ -d "$directory" ] || continue
    POLY_RUN_DIR=$directory timeout -k 5 20 "${as[@]}" node "$root/server/bin/poly.js" stop --lazy >/dev/null 2>&1 || true
  done
  release_mounts "$top"
  bash "$root/scripts/ceph-cluster.sh" down "$top/ceph"
  rm -rf --one-file-system "$top"
}

# The user that "user" means: ourselves, or nobody when we are root.
ordinary_user() {
  [ "$(id -u)" -eq 0 ] || return 0
  as=(setpriv --reuid "$nobody" --regid "$nobody" --clear-groups env HOME=/nonexistent)
}

# Brings the cluster up, once; the options of a mount as its tenant t1.
ceph_options() {
  local absent
  absent=$(bash "$root/scripts/ceph-cluster.sh" missing) || die "ceph: Debian packages are missing: $absent"
  [ -d "$top/ceph" ] || bash "$root/scripts/ceph-cluster.sh" up "$top/ceph"
  echo "user=t1,conf=$top/ceph/ceph.conf"
}

# run_pair FRONT-END LIBSERVICE: mounts, runs, unmounts; the suite's output, its last line the tally.
run_pair() {
  local place=$top/$1-$2 spec=$2 status=0 under=() options=() known=()
  as=()
  [ "$1" != user ] || ordinary_user
  mkdir -p "$place"/{run,mnt,back,reference}
  chmod 700 "$place/run"
  [ ${#as[@]} -eq 0 ] || chown "$nobody:$nobody" "$place" "$place"/*
  [ "$2" != local ] || spec=local:$place/back
  if [ "$2" = ceph ]; then
    spec=ceph:/t1
    options=(-o "$(ceph_options)") || return 1
    known=(--deviations "$root/test/conformance/deviations/ceph.txt")
  fi
  export POLY_RUN_DIR=$place/run
  "${as[@]}" node "$root/server/bin/poly.js" mount "$spec" "$place/mnt" "${options[@]}" || return 1
  if [ "$1" = fast ]; then
    poly run --check "$program" || return 1 # otherwise it would say nothing about the fast path
    under=(node "$root/server/bin/poly.js" run --)
  fi
  "${as[@]}" "${under[@]}" "$program" "${known[@]}" ${POLY_CONFORMANCE:-} "$place/mnt" || status=$?
  timeout -k 5 30 "${as[@]}" node "$root/server/bin/poly.js" stop || status=1
  return "$status"
}

pairs=("$@")
if [ ${#pairs[@]} -eq 0 ]; then
  pairs=(user:memory user:local)
  [ "$(id -u)" -ne 0 ] || pairs=(fuse:memory fuse:local "${pairs[@]}")
fi
for pair in "${pairs[@]}"; do
  [[ $pair == ?*:?* ]] || die "$pair: not FRONT-END:LIBSERVICE"
done
passed=0 failed=0 skipped=0
for pair in "${pairs[@]}"; do
  status=0
  run_pair "${pair%%:*}" "${pair#*:}" >"$top/log" 2>&1 </dev/null || status=$?
  sed "s|^|$pair |" "$top/log"
  read -r p f s < <(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped.*/\1 \2 \3/p' "$top/log" | tail -n 1) ||
    { p=0 f=0 s=0; }
  if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
