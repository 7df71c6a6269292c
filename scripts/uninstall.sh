#!/bin/bash
# Takes away what scripts/install.sh installed; same options. Mounts, the daemon and /etc/poly are left alone.
#   sudo scripts/uninstall.sh [--prefix=/usr/local] [--sbindir=/sbin]        DESTDIR=/stage for a staged one
set -euo pipefail

prefix=/usr/local
sbindir=/sbin
for arg in "$@"; do
  case $arg in
  --prefix=/*) prefix=${arg#*=} ;;
  --sbindir=/*) sbindir=${arg#*=} ;;
  -h | --help) sed -n '2,3s/^# \{0,1\}//p' "$0" && exit 0 ;;
  *) echo "uninstall.sh: $arg: not known (see --help)" >&2 && exit 1 ;;
  esac
done

dest=${DESTDIR:-}
helpers=$(dirname "$(readlink -f "$0")")/../mount-helpers

remove_link() { # NAME: only a link of ours, into some checkout
  case $(readlink "$dest$1" || true) in
  */mount-helpers/mount.poly | */server/bin/poly.js | */preload/libpoly-preload.so) rm -f "$dest$1" ;;
  esac
}

remove_link "$prefix/bin/poly"
remove_link "$prefix/lib/polytropon/libpoly-preload.so"
rmdir "$dest$prefix/lib/polytropon" 2>/dev/null || true
for name in mount.poly umount.poly mount.fuse.poly umount.fuse.poly; do
  remove_link "$sbindir/$name"
done
for file in lib/systemd/system/poly.service lib/systemd/system/poly@.service lib/systemd/user/poly.service \
  lib/tmpfiles.d/poly.conf share/bash-completion/completions/poly share/zsh/site-functions/_poly; do
  rm -f "$dest$prefix/$file"
done
for page in "$helpers"/man/*.[1-8]; do
  rm -f "$dest$prefix/share/man/man${page##*.}/${page##*/}"
done
if [[ -z $dest && -d /run/systemd/system ]]; then systemctl daemon-reload; fi
echo "uninstalled from $dest$prefix and $dest$sbindir"
