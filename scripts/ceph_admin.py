"""What ceph-cluster.sh asks of a cluster through librados and libcephfs, as client.admin:
    ceph_admin.py CONF define OSD_UUID         the OSD, the pools and the filesystem "cephfs"
    ceph_admin.py CONF tenants NAME[:BYTES]... waits for the MDS, then makes each tenant's directory
    ceph_admin.py CONF mon JSON...             monitor commands; prints what they answer
"""
import json
import sys
import time

import cephfs
import rados

ACTIVE_SECONDS = 60
# A mkdir within some 20 ms of up:active once made the MDS of 16.2.15 fail an assertion (Server.cc, snaprealm's sequence).
SETTLE_SECONDS = 0.5


def ask(cluster, command):
    status, output, error = cluster.mon_command(json.dumps(command), b"", timeout=20)
    if status:
        sys.exit(f"{command}: {status} {error}")
    return output.decode()


def define(cluster, osd_uuid):
    for command in (
        {"prefix": "osd new", "uuid": osd_uuid, "id": 0},
        {"prefix": "osd pool create", "pool": "cephfs_meta", "pg_num": 8},
        {"prefix": "osd pool create", "pool": "cephfs_data", "pg_num": 8},
        {"prefix": "fs new", "fs_name": "cephfs", "metadata": "cephfs_meta", "data": "cephfs_data"},
    ):
        ask(cluster, command)


def wait_active(cluster):
    deadline = time.monotonic() + ACTIVE_SECONDS
    while time.monotonic() < deadline:
        [filesystem] = json.loads(ask(cluster, {"prefix": "fs dump", "format": "json"}))["filesystems"]
        if any(mds["state"] == "up:active" for mds in filesystem["mdsmap"]["info"].values()):
            time.sleep(SETTLE_SECONDS)
            return
        time.sleep(0.03)
    sys.exit(f"the MDS is not active after {ACTIVE_SECONDS} s")


def make_tenant(files, tenant):
    """A directory whose files' objects lie in the namespace that the tenant's key is for."""
    name, _, quota = tenant.partition(":")
    path = "/" + name
    files.mkdir(path, 0o755)
    # As on a directory of the tenant's own disk: who acts below it is for its modes to say.
    files.setxattr(path, "ceph.dir.layout.pool_namespace", name.encode(), 0)
    if quota:
        files.setxattr(path, "ceph.quota.max_bytes", quota.encode(), 0)


def make_tenants(conf, tenants):
    files = cephfs.LibCephFS(conffile=conf, auth_id="admin")
    files.mount(b"/")
    for tenant in tenants:
        make_tenant(files, tenant)
    files.unmount()
    files.shutdown()


def main():
    conf, command, *arguments = sys.argv[1:]
    with rados.Rados(conffile=conf, name="client.admin") as cluster:
        if command == "define":
            define(cluster, *arguments)
        elif command == "tenants":
            wait_active(cluster)
            make_tenants(conf, arguments)
        elif command == "mon":
            for text in arguments:
                print(ask(cluster, json.loads(text)))
        else:
            sys.exit(f"{command}: not known")


main()
