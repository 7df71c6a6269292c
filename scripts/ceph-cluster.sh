#!/bin/bash
# A Ceph cluster for tests and demonstrations, of Debian's packages: a monitor, an OSD and an MDS on loopback, all state
# in one directory, no systemd, no manager.
#   scripts/ceph-cluster.sh up DIR [--tenant NAME[:QUOTA_BYTES]]... [--store memstore|bluestore] [--size GIB]
#   scripts/ceph-cluster.sh down DIR             stops the daemons and removes DIR
#   scripts/ceph-cluster.sh status DIR           "NAME PID" or "NAME -" of each daemon; fails unless all run
#   scripts/ceph-cluster.sh kill DIR mon|osd|mds   SIGKILL, and waits for its end; the OSD's needs bluestore
#   scripts/ceph-cluster.sh start DIR mon|osd|mds
#   scripts/ceph-cluster.sh ask DIR mon|osd|mds WORDS   what the daemon answers (ceph daemon, ceph(8)), JSON
#   scripts/ceph-cluster.sh missing              the Debian packages that are not installed; fails when there are some
# DIR, made by `up`, holds ceph.conf and ceph.client.NAME.keyring of the user `admin` and of every tenant (default: t1 and
# t2). A tenant has the directory /NAME, the RADOS namespace NAME for its data, and a key for nothing else. Anybody may run it.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib.sh"

daemons=(mon osd mds)
# What one cluster listens on: one port of the monitor, and those the OSD and the MDS find free. Below Linux's ephemeral ports.
ports_first=20000 ports_each=40 ports_ranges=300
gone_seconds=15

missing() {
  local program absent=()
  for program in ceph-mon ceph-osd ceph-mds; do
    command -v "$program" >/dev/null || absent+=("$program")
  done
  command -v ceph-authtool >/dev/null || absent+=(ceph-common)
  /usr/bin/python3 -c 'import rados' 2>/dev/null || absent+=(python3-rados)
  /usr/bin/python3 -c 'import cephfs' 2>/dev/null || absent+=(python3-cephfs)
  [ ${#absent[@]} -eq 0 ] || {
    echo "${absent[*]}"
    return 1
  }
}

# --- Daemons ---------------------------------------------------------------------------------------------------------

# pid_of NAME: the daemon's pid, if that process still is our daemon. A dead one that nobody has waited for yet has no exe.
pid_of() {
  local pid
  pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 1
  [[ $(readlink "/proc/$pid/exe") == */ceph-$1 ]] || return 1
  grep -qzxF -- "$dir/ceph.conf" "/proc/$pid/cmdline" || return 1
  echo "$pid"
} 2>/dev/null

start_daemon() {
  local id=a
  [ "$1" != osd ] || id=0
  # Not in the group of who brings it up: an interrupt from the terminal is not meant for it.
  setsid --wait "ceph-$1" -i "$id" -c "$dir/ceph.conf" >"$dir/log/$1.out" 2>&1 </dev/null
}

end_daemon() {
  local pid end=$((SECONDS + gone_seconds))
  while pid=$(pid_of "$1"); do
    kill -KILL "$pid" 2>/dev/null || true
    [ "$SECONDS" -lt "$end" ] || die "$1 (pid $pid) is still there after $gone_seconds s"
    sleep 0.02
  done
}

# A memstore is written to the disk by an OSD that ends in peace only.
kill_daemon() {
  [ "$1" != osd ] || ! grep -qx 'osd objectstore = memstore' "$dir/ceph.conf" ||
    die "an OSD with a memstore would lose everything (up with --store bluestore)"
  end_daemon "$1"
}

status() {
  local name pid result=0
  for name in "${daemons[@]}"; do
    pid=$(pid_of "$name") || { pid=- result=1; }
    echo "$name $pid"
  done
  return "$result"
}

down() {
  local name
  [ -e "$dir" ] || return 0
  [ -f "$dir/ceph.conf" ] || die "$dir: no cluster's directory"
  for name in mds osd mon; do end_daemon "$name"; done
  rm -rf --one-file-system "$dir"
}

# --- A new cluster ---------------------------------------------------------------------------------------------------

# The first port of a range in which nothing listens (proc(5), net/tcp: state 0A; ports in hexadecimal).
free_ports() {
  local used range first port
  used=$(awk '$4 == "0A" { sub(/.*:/, "", $2); print $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null)
  for range in $(shuf -i "0-$((ports_ranges - 1))"); do
    first=$((ports_first + range * ports_each))
    for ((port = first; port < first + ports_each; port++)); do
      [[ $'\n'$used$'\n' != *$'\n'"$(printf %04X "$port")"$'\n'* ]] || continue 2
    done
    echo "$first"
    return 0
  done
  die 'no free ports'
}

configure() {
  local lease_ratio=.2
  [ "$store" != memstore ] || lease_ratio=15  # its OSD is not restarted
  cat >"$dir/ceph.conf" <<END
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$port/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr1 = false
ms bind port min = $((port + 1))
ms bind port max = $((port + ports_each - 1))
ms async op threads = 2
# It never leaves the machine: checksums, no encryption.
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
run dir = $dir
crash dir = $dir/log
log file = $dir/log/\$name.log
mon cluster log file = $dir/log/cluster.log
log to syslog = false
err to syslog = false
# One copy of everything.
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
# A restarted OSD serves again once its predecessor's read lease has run out: grace times ratio. One that was stopped
# (SIGSTOP) for longer than its lease may never serve again, of a pool with one copy (16.2).
osd heartbeat grace = 4
osd pool default read lease ratio = $lease_ratio
[client]
keyring = $dir/ceph.\$name.keyring
log file = /dev/null
admin socket =
[mon]
pid file = $dir/mon.pid
admin socket = $dir/mon.asok
keyring = $dir/keyring
mon data = $dir/mon
mon initial members = a
mon allow pool size one = true
mon data avail crit = 0
# A lone OSD that is down stays in, and is declared down by nobody but itself and the monitor.
mon osd down out interval = 0
mon osd min down reporters = 1
mon tick interval = 1
# Every change is a vote, and the default waits for more of them.
paxos propose interval = 0.02
paxos min wait = 0.01
mds beacon grace = 8
[osd]
pid file = $dir/osd.pid
admin socket = $dir/osd.asok
keyring = $dir/keyring
osd data = $dir/osd
osd objectstore = $store
memstore device bytes = $((gib << 30))
bluestore block size = $((gib << 30))
bluestore block create = true
bluestore cache autotune = false
bluestore cache size = 134217728
osd op num shards = 2
osd op num threads per shard = 1
osd max scrubs = 0
osd class load list = *
osd class default list = *
[mds]
pid file = $dir/mds.pid
admin socket = $dir/mds.asok
keyring = $dir/keyring
mds data = $dir/mds
mds beacon interval = 1
mds cache memory limit = 134217728
# How long a restarted MDS waits for sessions of clients that do not come back.
mds reconnect timeout = 5
END
}

make_keys() {
  local tenant name
  key keyring mon. mon 'allow *'
  key keyring osd.0 mon 'allow profile osd' osd 'allow *'
  key keyring mds.a mon 'allow profile mds' osd 'allow *' mds 'allow *'
  key ceph.client.admin.keyring client.admin mon 'allow *' osd 'allow *' mds 'allow *'
  for tenant in "${tenants[@]}"; do
    name=${tenant%%:*}
    # s: snapshots. Not p, which would allow to change layouts and quotas.
    key "ceph.client.$name.keyring" "client.$name" mon 'allow r' mds "allow rws path=/$name" \
      osd "allow rw pool=cephfs_data namespace=$name"
  done
  ceph-authtool "$dir/all.keyring" -C >/dev/null
  for name in keyring "$dir"/ceph.client.*.keyring; do
    ceph-authtool "$dir/all.keyring" --import-keyring "$dir/${name##*/}" >/dev/null
  done
}

# key FILE NAME [SERVICE CAPABILITIES]...
key() {
  local file=$dir/$1 name=$2 caps=()
  shift 2
  while [ $# -gt 0 ]; do
    caps+=(--cap "$1" "$2")
    shift 2
  done
  [ -e "$file" ] || ceph-authtool -C "$file" >/dev/null
  ceph-authtool "$file" -n "$name" --gen-key "${caps[@]}" >/dev/null
}

# admin SUBCOMMAND [ARGUMENTS]: what needs librados or libcephfs.
admin() {
  timeout -k 5 90 /usr/bin/python3 "$root/scripts/ceph_admin.py" "$dir/ceph.conf" "$@"
}

start_monitor() {
  monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$port]" --enable-all-features \
    --set-min-mon-release pacific "$dir/monmap" >/dev/null
  ceph-mon -i a -c "$dir/ceph.conf" --mkfs --monmap "$dir/monmap" --keyring "$dir/all.keyring"
  start_daemon mon
}

# bring_up: every step's output goes to log/up.out.
bring_up() {
  local osd_id
  fsid=$(cat /proc/sys/kernel/random/uuid) osd_id=$(cat /proc/sys/kernel/random/uuid)
  port=$(free_ports)
  configure
  make_keys
  start_monitor
  admin define "$osd_id"
  ceph-osd -i 0 -c "$dir/ceph.conf" --mkfs --osd-uuid "$osd_id"
  start_daemon osd
  start_daemon mds
  admin tenants "${tenants[@]}"
}

up() {
  [ ! -e "$dir" ] || die "$dir: exists already"
  # A unix socket's path has 107 bytes at most, unix(7).
  [ ${#dir} -le 80 ] || die "$dir: too long a path for the sockets in it"
  [ -z "$(missing)" ] || die "Debian packages are missing: $(missing)"
  # Other users' programs read ceph.conf and their own keyring.
  mkdir -m 755 "$dir"
  mkdir "$dir"/{mon,osd,mds,log}
  trap 'up_failed' EXIT
  (bring_up) >"$dir/log/up.out" 2>&1
  trap - EXIT
}

up_failed() {
  tail -n 15 "$dir/log/up.out" "$dir"/log/*.out >&2 || true
  [ ! -f "$dir/ceph.conf" ] || down
  rm -rf --one-file-system "$dir"
  die "$dir: the cluster does not come up"
}

options() {
  while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die "$1: needs a value"
    case $1 in
      --tenant) tenants+=("$2") ;;
      --store) store=$2 ;;
      --size) gib=$2 ;;
      *) die "$1: not known (see --help)" ;;
    esac
    shift 2
  done
  [ ${#tenants[@]} -gt 0 ] || tenants=(t1 t2)
}

case ${1:-} in
  -h | --help)
    sed -n '2,12s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
  missing)
    missing
    exit
    ;;
esac
[ $# -ge 2 ] || die 'usage: ceph-cluster.sh COMMAND DIR (see --help)'
command=$1 dir=$(readlink -m "$2")
shift 2
tenants=() store=memstore gib=4
case $command in
  up)
    options "$@"
    up
    ;;
  down) down ;;
  status) status ;;
  kill | start)
    [[ " ${daemons[*]} " == *" ${1:-} "* ]] || die "${1:-}: no daemon (see --help)"
    "${command}_daemon" "$1"
    ;;
  ask) ceph --admin-daemon "$dir/$1.asok" "${@:2}" ;;
  *) die "$command: not known (see --help)" ;;
esac
