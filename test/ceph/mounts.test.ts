/** Ways to mount: named filesystems, subdirectories of them, fstab, remount; and that a mount leaves no session behind. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
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

for (const how of ['pool', 'share']) {
  test(`directories of a tenant in one service share his client (by ${how})`, async (t, cluster) => {
    const host = await Host.start(t);
    const above = await host.mount(cluster, 'above');
    await sh(
      `mkdir -p ${above}/a ${above}/b; echo in a >${above}/a/f; echo in b >${above}/b/f; mkdir -p ${above}/a/sub`,
    );
    await host.must('umount', above);
    const a = await host.mount(cluster, 'a', {
      source: '/t1/a',
      words: how === 'pool' ? ['--pool', 'p'] : [],
    });
    // Shared is what lies above in the tree of mounts.
    const name = how === 'pool' ? 'b' : 'a/sub';
    const words = how === 'pool' ? ['--pool', 'p'] : ['--share'];
    const b = await host.mount(cluster, name, { source: '/t1/b', words });
    const both = async (): Promise<string> => sh(`cat ${a}/f ${b}/f`);
    t.is(await both(), 'in a\nin b\n');
    t.is(await cluster.sessions('t1'), 1);
    const mounts = await host.client.request('mount.list', {});
    t.deepEqual(
      mounts.map(({ outcome, shares }) => [outcome, shares]),
      [
        ['new-service', [b]],
        ['shared', [a]],
      ],
    );
    const again = await host.poly('mount', 'ceph:/t1/b', b, '-o', `user=t1,conf=${cluster.conf}`);
    t.is(again.code, 0, again.stderr);
    const other = await host.poly('mount', 'ceph:/t1/a', b, '-o', `user=t1,conf=${cluster.conf}`);
    t.not(other.code, 0);

    const [service] = (await host.client.request('status', {})).services;
    process.kill(service?.pid ?? 0, 'SIGKILL');
    t.is(await both(), 'in a\nin b\n', 'its successor has the same roots');
    await host.must('umount', b);
    t.is(await sh(`cat ${a}/f; ls ${b}`), 'in a\n');
    await host.must('umount', a);
    await until('the session has ended', 10_000, async () => (await cluster.sessions('t1')) === 0);
  });
}

test('a client for a whole tenant does not let out of the directory that is mounted', async (t, cluster) => {
  const host = await Host.start(t);
  const above = await host.mount(cluster, 'above');
  await sh(
    `mkdir -p ${above}/inner; ln -sfn .. ${above}/inner/up; echo secret >${above}/outside; ln -sfn inner ${above}/link`,
  );
  await host.must('umount', above);
  const inner = await host.mount(cluster, 'inner', { source: '/t1/inner' });
  t.is(await sh(`cat ${inner}/../outside ${inner}/up/outside 2>/dev/null || echo none`), 'none\n');
  const settings = `user=t1,conf=${cluster.conf}`;
  const link = await host.poly('mount', 'ceph:/t1/link', host.directory('l'), '-o', settings);
  t.not(link.code, 0);
  t.regex(link.stderr, /\/t1\/link.*not a directory/i);
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

test('umount of what a slow cluster has yet to take loses nothing, and keeps nobody else waiting', async (t, cluster) => {
  const host = await Host.start(t);
  // What is written stays in the cache until half of it is dirty, or for 5 s.
  const path = await host.mount(cluster, 'm', {
    options: ['write=back', 'dirty=80m'],
    words: ['--pool', 'p'],
  });
  const other = host.directory('other');
  await host.must('mount', 'memory', other, '--pool', 'p');
  const fresh = join(host.directory('fresh'), 'f');
  await sh(`head -c 30000000 /dev/urandom >${fresh}; cp ${fresh} ${path}/f`);
  await cluster.signal('osd', 'SIGSTOP');
  t.teardown(() => cluster.signal('osd', 'SIGCONT'));
  let returned = false;
  const unmounted = host.must('umount', path).then(() => (returned = true));
  await sleep(7000);
  t.false(returned);
  await sh(`echo x >${other}/x; cat ${other}/x; df ${other}`, 2000);
  t.is((await host.client.request('status', {})).services[0]?.state, 'running');
  await cluster.signal('osd', 'SIGCONT');
  await unmounted;
  t.is(await cluster.sessions('t1'), 0);
  const again = await host.mount(cluster, 'again');
  await sh(`cmp ${fresh} ${again}/f`, 30_000);
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
