#!/bin/bash
# Installs a built checkout for the whole system: the command, the library of `poly run`, mount(8) helpers, systemd
# units, tmpfiles.d, man pages, completion, all pointing back to the checkout. May be run again; scripts/uninstall.sh
# takes it away.
#   sudo scripts/install.sh [--prefix=/usr/local] [--sbindir=/sbin]        DESTDIR=/stage stages it elsewhere
set -euo pipefail

prefix=/usr/local
# The only place besides /sbin/fs* where mount(8) looks for helpers.
sbindir=/sbin
for arg in "$@"; do
  case $arg in
  --prefix=/*) prefix=${arg#*=} ;;
  --sbindir=/*) sbindir=${arg#*=} ;;
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0" && exit 0 ;;
  *) echo "install.sh: $arg: not known (see --help)" >&2 && exit 1 ;;
  esac
done

root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
dest=${DESTDIR:-}
node=$(readlink -f "$(command -v node)") || { echo 'install.sh: node: not found' >&2 && exit 1; }
if [[ $root$node =~ [[:space:]|] ]]; then
  echo "install.sh: $root: a path with white space or '|' cannot stand in systemd units" >&2
  exit 1
fi
if [[ -z $dest && $EUID -ne 0 ]]; then
  echo 'install.sh: needs root (or DESTDIR=DIR to stage the files)' >&2
  exit 1
fi

link() { # TARGET NAME
  mkdir -p "$dest$(dirname "$2")"
  ln -sfn "$1" "$dest$2"
}

put() { # FILE NAME: with node and the checkout filled in
  mkdir -p "$dest$(dirname "$2")"
  sed -e "s|@NODE@|$node|g" -e "s|@ROOT@|$root|g" "$1" >"$dest$2.new"
  chmod 644 "$dest$2.new"
  mv -f "$dest$2.new" "$dest$2"
}

helpers=$root/mount-helpers
link "$root/server/bin/poly.js" "$prefix/bin/poly"
# For those who set LD_PRELOAD themselves.
link "$root/build/native/preload/libpoly-preload.so" "$prefix/lib/polytropon/libpoly-preload.so"
for name in mount.poly umount.poly mount.fuse.poly umount.fuse.poly; do
  link "$helpers/mount.poly" "$sbindir/$name"
done
mkdir -p "$root/build"
echo "$node" >"$root/build/node-path"
for unit in poly.service poly@.service; do
  put "$helpers/systemd/system/$unit.in" "$prefix/lib/systemd/system/$unit"
done
put "$helpers/systemd/user/poly.service.in" "$prefix/lib/systemd/user/poly.service"
put "$helpers/tmpfiles.d/poly.conf" "$prefix/lib/tmpfiles.d/poly.conf"
for page in "$helpers"/man/*.[1-8]; do
  put "$page" "$prefix/share/man/man${page##*.}/${page##*/}"
done
put "$helpers/completion/poly.bash" "$prefix/share/bash-completion/completions/poly"
put "$helpers/completion/_poly" "$prefix/share/zsh/site-functions/_poly"

if [[ -z $dest && -d /run/systemd/system ]]; then
  systemctl daemon-reload
  systemd-tmpfiles --create "$prefix/lib/tmpfiles.d/poly.conf"
fi
echo "installed in $dest$prefix and $dest$sbindir (start at boot: systemctl enable --now poly)"
