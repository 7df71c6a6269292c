#!/bin/bash
# Shows a mounted filesystem at work on real input: unpacks a source tree of thousands of files, puts it under git,
# builds a program in it, and reads everything back with a statically linked program.
#   scripts/demo.sh DIR      DIR is made anew; what is in it is lost
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"

[ $# -eq 1 ] || die 'usage: demo.sh DIR'
directory=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# step TEXT COMMAND...: runs it; one line with its time, its output only when it fails.
step() {
  local text=$1 begin status=0
  shift
  begin=$(now)
  "$@" >"$scratch/log" 2>&1 </dev/null || status=$?
  if [ "$status" -ne 0 ]; then
    tail -n 30 "$scratch/log" >&2
    die "$text: failed with status $status"
  fi
  printf '   %-66s %8s\n' "$text" "$(since "$begin")"
}

# The source tree: this project's own sources, its npm packages, and the machine's C++ and kernel headers.
pack() {
  git ls-files -z --cached -- native fastpath libservices preload server test CMakeLists.txt package.json >"$scratch/own" ||
    find native fastpath libservices preload server test CMakeLists.txt package.json -type f -print0 >"$scratch/own"
  local headers=(usr/include/c++ usr/include/linux usr/include/x86_64-linux-gnu)
  tar -cf "$scratch/tree.tar" --null -T "$scratch/own" --exclude=.cache node_modules -C / "${headers[@]}"
}

unpack() {
  rm -rf "$directory"
  mkdir -p "$directory"
  tar -xf "$scratch/tree.tar" -C "$directory"
}

under_git() {
  local git=(git -C "$directory" -c user.name=demo -c user.email=demo@localhost -c gc.auto=0 -c core.autocrlf=false)
  git init -q "$directory"
  "${git[@]}" add --force .
  "${git[@]}" commit -q -m 'Everything'
  "${git[@]}" fsck --strict --full
  [ -z "$("${git[@]}" status --porcelain)" ]
}

compile() {
  cmake -S "$directory" -B "$directory/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug
  ninja -C "$directory/build" poly-keeper
  [[ $("$directory/build/native/poly-keeper" --help 2>&1) == usage:* ]]
}

# The list comes from the tar file, through the host's own filesystem, and not from the mount.
checksums() {
  mkdir "$scratch/host"
  tar -xf "$scratch/tree.tar" -C "$scratch/host"
  (cd "$scratch/host" && find . -type f -print0 | xargs -0 sha256sum) >"$scratch/sums"
}

# busybox-static: no preloading, no shared library, just system calls.
read_back() {
  (cd "$directory" && busybox sha256sum -c "$scratch/sums") >"$scratch/checked" || {
    grep -v ': OK$' "$scratch/checked" | head
    return 1
  }
}

say '== demonstration'
pack
checksums
files=$(wc -l <"$scratch/sums")
megabytes=$(($(stat -c %s "$scratch/tree.tar") / 1000000))
step "unpack a source tree: $files files, $megabytes MB (tar)" unpack
step 'git: init, add, commit, fsck --strict --full, status' under_git
step 'compile one of its programs there (cmake, ninja, g++), run it' compile
step "read all $files files back with a static program: every SHA-256 right" read_back
step 'compare with the source (diff -r)' diff -r --no-dereference "$scratch/host/usr" "$directory/usr"
