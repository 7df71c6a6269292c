/** Ways to mount: named filesystems, subdirectories of them, fstab, remount; and that a mount leaves no session behind. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, run } from '../server/cli_harness.ts';
import { until } from '../server/helpers.ts';
import { sh } from '../server/real.ts';
import type { Cluster } from './cluster.ts';
import { clusterTests, Host } from './harness.ts';

const { test } = clusterTests();

function configure(host: Host, cluster: Cluster, more = ''): void {
  const dir = join(host.site.dir.path, 'config');
  mkdirSync(dir, { recursive: true });
  writeFileSync(
    join(dir, 'web.toml'),
    `[filesystem.web]
type = "ceph"
source = "/t1"
user = "t1"
conf = "${cluster.conf}"
${more}`,
  );
}

test('a named filesystem, and a subdirectory of it that shares its client', async (t, cluster) => {
  const host = await Host.start(t);
  configure(host, cluster, 'cache = "64m"\nwrite = "back"\nop_timeout = 20\npool = "p"\n');
  const checked = await host.poly('config', 'check');
  t.is(checked.code, 0, checked.stderr);
  const [whole, sub] = [host.directory('whole'), host.directory('sub')];
  await host.must('mount', 'web', whole);
  await sh(`mkdir -p ${whole}/static; echo page >${whole}/static/index`);
  await host.must('mount', 'web/static', sub);
  t.is(await sh(`cat ${sub}/index`), 'page\n');
  await sh(`echo new >${sub}/index`);
  t.is(await sh(`cat ${whole}/static/index`), 'new\n');
  t.is((await host.client.request('status', {})).services.length, 1);
  t.is(await cluster.sessions('t1'), 1);
});

test('umount ends the session at once, and the next client need not wait', async (t, cluster) => {
  const host = await Host.start(t);
  for (let i = 0; i < 3; i++) {
    const begin = Date.now();
    const path = await host.mount(cluster, 'm', { options: ['write=back'] });
    await sh(`echo ${String(i)} >${path}/unsynced; ls ${path}`);
    await host.must('umount', path);
    await until('the session has ended', 10_000, async () => (await cluster.sessions('t1')) === 0);
    t.true(Date.now() - begin < 15_000);
  }
  const path = await host.mount(cluster, 'm');
  t.is(await sh(`cat ${path}/unsynced`), '2\n', 'what was not synced has been written by umount');
});

test('remounted read-only and back', async (t, cluster) => {
  const host = await Host.start(t);
  const path = await host.mount(cluster, 'm');
  await host.must('mount', 'ceph:/t1', path, '-o', 'remount,ro');
  await t.throwsAsync(sh(`touch ${path}/x`), { message: /Read-only/ });
  await host.must('mount', 'ceph:/t1', path, '-o', 'remount,rw');
  await sh(`touch ${path}/x; rm ${path}/x`);
});

/** mount(8) finds helpers in /sbin alone, and fstab where it is told: both are laid over in a namespace of their own. */
const FSTAB = `
set -eu
mount -t tmpfs none "$STAGE"
mkdir "$STAGE/upper" "$STAGE/work"
mount -t overlay -o "lowerdir=/usr/sbin,upperdir=$STAGE/upper,workdir=$STAGE/work" none /usr/sbin
ln -s "$LAUNCHER" /usr/sbin/mount.poly
ln -s "$LAUNCHER" /usr/sbin/umount.poly
echo "$SPEC $MNT poly $OPTIONS 0 0" >"$STAGE/fstab"
mount --fstab "$STAGE/fstab" -a -O _netdev
echo fstab >"$MNT/from-fstab"
cat "$MNT/from-fstab"
umount "$MNT"
`;

for (const by of ['spec', 'name']) {
  test(`mounted by fstab with _netdev, by ${by}`, async (t, cluster) => {
    const host = await Host.start(t);
    configure(host, cluster);
    const env = {
      ...host.site.env,
      STAGE: host.directory('stage'),
      MNT: host.directory('m'),
      LAUNCHER: join(root, 'mount-helpers/mount.poly'),
      SPEC: by === 'spec' ? 'ceph:/t1' : 'web',
      OPTIONS: by === 'spec' ? `_netdev,nofail,user=t1,conf=${cluster.conf}` : '_netdev,nofail',
    };
    const ended = await run('unshare', ['--mount', '--propagation', 'private', 'bash', '-c', FSTAB], env);
    t.is(ended.stderr, '');
    t.is(ended.stdout, 'fstab\n');
    t.is(ended.code, 0);
    t.deepEqual(await host.client.request('mount.list', {}), []);
    const path = await host.mount(cluster, 'again');
    t.is(await sh(`cat ${path}/from-fstab`), 'fstab\n');
  });
}
