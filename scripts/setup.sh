#!/bin/bash
# Installs what building and running need, where it is missing: Debian packages by name, then npm packages.
#   scripts/setup.sh [--test]        --test: what the tests need, too
# Changes nothing, and takes a fraction of a second, when everything is there. Uses sudo when not root.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"

build_packages=(build-essential cmake ninja-build pkg-config)
# fuse3 lets ordinary users mount; the rest is what `npm start` shows the mount with.
run_packages=(fuse3 attr acl busybox-static git)
test_packages=(
  clang-format libfuse3-dev bindfs                    # lint, benchmark peers
  libconcurrentqueue-dev libboost-dev libtbb-dev      # queues to compare with
  python3 libpython3.11-testsuite                     # CPython's own tests
  fio dbench stress-ng sqlite3 rocksdb-tools rsync bc # applications
  man-db systemd zsh                                  # man pages, units, completion
  # The Ceph cluster (scripts/ceph-cluster.sh), and what the ceph libservice is compared with.
  ceph-mon ceph-osd ceph-mds ceph-common python3-rados python3-cephfs libcephfs2 ceph-fuse
)

check_node() {
  command -v node >/dev/null && command -v npm >/dev/null || die 'Node.js 20.17 or later with npm is needed'
  node -e 'const [a, b] = process.versions.node.split(".").map(Number);
    process.exit(a > 20 || (a === 20 && b >= 17) ? 0 : 1)' ||
    die "Node.js 20.17 or later is needed, this is $(node --version)"
}

# Prints those of its arguments that are not installed.
missing_packages() {
  dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
    awk -v wanted="$*" '$1 == "installed" { have[$2] = 1 }
      END { n = split(wanted, list, " "); for (i = 1; i <= n; i++) if (!(list[i] in have)) print list[i] }'
}

install_packages() {
  local missing prefix
  command -v dpkg-query >/dev/null || die "not a Debian system; install what these Debian packages hold: $*"
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  prefix=$(root_prefix)
  if [ "$prefix" = none ]; then
    die "Debian packages are missing, and neither root nor sudo is at hand. As root, run:
  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  say "installing Debian packages: ${missing[*]}"
  local apt=(${prefix:+"$prefix"} env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120)
  run_logged "${apt[@]}" update
  run_logged "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
}

# Shows what a command has to say only when it fails.
run_logged() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null || status=$?
  [ "$status" -eq 0 ] || tail -n 40 "$log" >&2
  rm -f "$log"
  [ "$status" -eq 0 ] || die "failed with status $status: $*"
}

install_modules() {
  # npm writes this file last, so it tells a complete installation and its age.
  if [ -f node_modules/.package-lock.json ] && [ ! package-lock.json -nt node_modules/.package-lock.json ]; then
    return 0
  fi
  say 'installing npm packages'
  run_logged npm ci --no-audit --no-fund
  touch node_modules/.package-lock.json
}

# Ordinary users mount through fusermount3, which opens /dev/fuse as them: udev makes it 0666, where it runs.
check_fuse() {
  local prefix
  prefix=$(root_prefix)
  if [ ! -e /dev/fuse ] && [ "$prefix" != none ]; then $prefix modprobe fuse 2>/dev/null || true; fi
  [ -e /dev/fuse ] || die '/dev/fuse is missing: load the kernel module (as root: modprobe fuse), or give the
container the device (docker run --device /dev/fuse --cap-add SYS_ADMIN)'
  case $(stat -c %a /dev/fuse) in
    666) ;;
    *) if [ "$prefix" != none ]; then $prefix chmod 666 /dev/fuse || true; fi ;;
  esac
}

packages=("${build_packages[@]}" "${run_packages[@]}")
for argument in "$@"; do
  case $argument in
    --test) packages+=("${test_packages[@]}") ;;
    -h | --help) sed -n '2,4s/^# //p' "$0" && exit 0 ;;
    *) die "unknown option $argument" ;;
  esac
done
check_node
install_packages "${packages[@]}"
install_modules
check_fuse
