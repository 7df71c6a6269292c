#!/bin/bash
# npm start: installs what is missing, builds, starts the daemon, mounts a filesystem and shows it at work (demo.sh).
# May be run again: the running daemon and the mount are used.
#   POLY_DEMO_DIR=DIR says where to mount; default /mnt/polytropon for root, ~/polytropon for others
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"

size=1g
directory=${POLY_DEMO_DIR:-}
if [ -z "$directory" ]; then
  directory=$([ "$(id -u)" -eq 0 ] && echo /mnt/polytropon || echo "$HOME/polytropon")
fi

begin=$(now)
say '== set-up'
bash scripts/setup.sh
say "   Debian packages, npm packages and /dev/fuse are there ($(since "$begin"))"

begin=$(now)
say '== build'
bash scripts/build.sh --product
say "   build/native and dist are up to date ($(since "$begin"))"

begin=$(now)
say '== mount'
say "   daemon: $(poly start)"
mkdir -p "$directory" 2>/dev/null || true # fails when it is a mount whose server is gone; poly mount says so
if ! poly ls --json | node -e '
    const mounts = JSON.parse(require("fs").readFileSync(0, "utf8"));
    process.exit(mounts.some(({ path, spec }) => path === process.argv[1] && spec === "memory:demo") ? 0 : 1)' \
  "$(readlink -f "$directory")"; then
  poly mount memory:demo "$directory" -o "size=$size" | sed 's/^/   /'
else
  say "   $directory: still mounted"
fi
say "   $(df -h --output=fstype,size,used,avail "$directory" | tail -n 1 | tr -s ' ') ($(since "$begin"))"

bash scripts/demo.sh "$directory/demo"

cat <<END
== it is yours
   $directory is mounted: use it like any directory, from any program.
   What there is:      npx poly ls; npx poly stat $directory; npx poly --help
   A host directory:   npx poly mount local:/srv/data /mnt/data
   Unmount this one:   npx poly umount $directory   (its contents go with it)
   Stop everything:    npx poly stop
END
