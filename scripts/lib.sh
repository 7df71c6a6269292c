# Sourced by the scripts: where we are, how to talk, how to become root, which mounts and processes are ours.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

poly() { node "$root/server/bin/poly.js" "$@"; }

# Seconds since the epoch, with milliseconds.
now() { date +%s.%3N; }

# since BEGIN: the seconds that have passed, "0.42 s".
since() { awk -v begin="$1" -v end="$(now)" 'BEGIN { printf "%.2f s", end - begin }'; }

# How commands that need root are run: "" for root, "sudo" where that works, "none" elsewhere.
root_prefix() {
  if [ "$(id -u)" -eq 0 ]; then
    echo ''
  elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    echo sudo
  else
    echo none
  fi
}

# fuse_mounts_below DIR: "MINOR PATH" of every FUSE mount of this namespace below DIR, the last mounted first.
fuse_mounts_below() {
  # proc(5), mountinfo: the type follows a lone "-" behind a varying number of optional fields.
  awk -v top="$1/" '{
    for (i = 7; $i != "-"; i++);
    if ($(i + 1) !~ /^fuse/ || index($5 "/", top) != 1) next
    split($3, device, ":")
    print device[2], $5
  }' /proc/self/mountinfo | tac
}

# release_mounts DIR: takes every mount below DIR away, whatever state it is in. Ending the connection first frees
# whoever waits for a server that no longer answers; umount alone could wait with them.
release_mounts() {
  local minor path
  while read -r minor path; do
    { echo 1 >"/sys/fs/fuse/connections/$minor/abort"; } 2>/dev/null || true
    path=$(printf '%b' "${path//\\/\\0}") # mountinfo writes white space as \040
    umount -l -- "$path" 2>/dev/null || fusermount3 -uz -- "$path" 2>/dev/null || true
  done < <(fuse_mounts_below "$1")
}

# processes_with NAME=VALUE: the processes that were started with this in their environment. A run marks what it starts
# with such a word (exported by a shell, it is not in that shell's own environment, proc(5)) and so finds its leftovers,
# and nobody else's.
processes_with() {
  # Or those that look would be among what is found.
  (unset "${1%%=*}" && grep -lzxF -- "$1" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3) || true
}

# end_processes NAME=VALUE: kills those processes, and waits until they are gone (10 s at most).
end_processes() {
  local pids round
  for round in 1 2 3 4 5 6 7 8 9 10; do
    pids=$(processes_with "$1")
    [ -n "$pids" ] || return 0
    # shellcheck disable=SC2086 # a list
    kill -KILL $pids 2>/dev/null || true
    sleep "$([ "$round" -le 3 ] && echo 0.2 || echo 1)"
  done
}
