/** Tenants apart: what a key, a path and a quota allow, and the one line that says why not. */
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { isOneLine, run } from '../server/cli_harness.ts';
import { until } from '../server/helpers.ts';
import { mountLines, sh } from '../server/real.ts';
import type { Cluster } from './cluster.ts';
import { clusterTests, Host } from './harness.ts';

const MIB = 1 << 20;
const QUOTA = 8 * MIB;

const { test } = clusterTests({ tenants: ['t1', 't2', `small:${String(QUOTA)}`] });

test('a tenant has its own directory, and an administrator sees both', async (t, cluster) => {
  const host = await Host.start(t);
  const one = await host.mount(cluster, 'one');
  const two = await host.mount(cluster, 'two', { user: 't2' });
  const all = await host.mount(cluster, 'all', { user: 'admin', source: '/' });
  await sh(`echo 1 >${one}/mine; echo 2 >${two}/mine; chmod 600 ${one}/mine; sync ${one}/mine ${two}/mine`);
  t.is(
    await sh(`cat ${all}/t1/mine ${all}/t2/mine; ls ${all} ${one}`),
    `1\n2\n${all}:\nsmall\nt1\nt2\n\n${one}:\nmine\n`,
  );
  const { services } = await host.client.request('status', {});
  t.is(services.length, 3, 'each has a service of its own');
  await host.must('umount', one, two, all);
  t.deepEqual(await host.client.request('mount.list', {}), []);
});

interface Refusal {
  title: string;
  source: string;
  options: (cluster: Cluster, scratch: string) => string[];
  says: RegExp;
}

/** The key of one user under the name of another. */
function forged(cluster: Cluster, scratch: string, name: string, keyOf: string): string {
  const file = join(scratch, 'forged.keyring');
  const text = readFileSync(cluster.keyring(keyOf), 'utf8');
  writeFileSync(file, text.replace(`[client.${keyOf}]`, `[client.${name}]`), { mode: 0o600 });
  return file;
}

const refusals: Refusal[] = [
  {
    title: "another's path",
    source: '/t2',
    options: () => ['user=t1'],
    says: /(?:t2|t1).*(?:not permitted|denied|may not|EPERM|EACCES)/i,
  },
  {
    title: "one's own path with another's key",
    source: '/t1',
    options: (cluster, scratch) => ['user=t1', `keyring=${forged(cluster, scratch, 't1', 't2')}`],
    says: /(?:denied|not permitted|key)/i,
  },
  {
    title: 'a keyring without this user',
    source: '/t1',
    options: (cluster, scratch) => {
      const file = join(scratch, 'other.keyring');
      copyFileSync(cluster.keyring('t2'), file);
      return ['user=t1', `keyring=${file}`];
    },
    says: /keyring|key/i,
  },
  {
    title: 'a keyring that is not there',
    source: '/t1',
    options: (_, scratch) => ['user=t1', `keyring=${scratch}/absent.keyring`],
    says: /absent\.keyring/,
  },
  {
    title: 'a path that is not there',
    source: '/t1/absent',
    options: () => ['user=t1'],
    says: /\/t1\/absent.*no such/i,
  },
  {
    title: 'a filesystem that is not there',
    source: '/t1',
    options: () => ['user=t1', 'fs=absent'],
    says: /absent/,
  },
];

for (const { title, source, options, says } of refusals) {
  test(`refused in one line, and nothing left: ${title}`, async (t, cluster) => {
    const host = await Host.start(t);
    const path = host.directory('m');
    const settings = [`conf=${cluster.conf}`, ...options(cluster, host.root)].join(',');
    const { code, stdout, stderr } = await host.poly('mount', `ceph:${source}`, path, '-o', settings);
    t.log(stderr.trim());
    t.true(code === 1 || code === 32, `status ${String(code)}`);
    t.is(stdout, '');
    t.true(isOneLine(stderr), stderr);
    t.regex(stderr, says);
    await nothingIsLeft(t, host, path);
  });
}

test('refused in one line, and nothing left: a cluster that is not configured', async (t) => {
  const host = await Host.start(t);
  const path = host.directory('m');
  const { code, stderr } = await host.poly('mount', 'ceph:/t1', path, '-o', `conf=${host.root}/absent.conf`);
  t.true(code === 1 || code === 32, `status ${String(code)}`);
  t.true(isOneLine(stderr), stderr);
  t.regex(stderr, /absent\.conf/);
  await nothingIsLeft(t, host, path);
});

async function nothingIsLeft(t: ExecutionContext, host: Host, path: string): Promise<void> {
  t.false(mountLines().some((line) => line.path === path));
  t.deepEqual(await host.client.request('mount.list', {}), []);
  await until('the service has gone', 10_000, async () => {
    const { services } = await host.client.request('status', {});
    return services.length === 0;
  });
}

for (const way of ['', 'run']) {
  const title = way === '' ? 'through FUSE' : 'by the fast path';
  test(`a quota ends in EDQUOT, and room made is room again, ${title}`, async (t, cluster) => {
    const host = await Host.start(t);
    const path = await host.mount(cluster, 'm', { user: 'small' });
    t.is(await sh(`df -B1 --output=size ${path} | tail -n 1`).then((text) => text.trim()), String(QUOTA));
    const dd = [
      'if=/dev/zero',
      `of=${path}/big${way}`,
      'bs=1M',
      `count=${String((3 * QUOTA) / MIB)}`,
      'conv=fsync',
    ];
    const command = way === '' ? run('dd', dd) : host.poly('run', '--', 'dd', ...dd);
    const { code, stderr } = await command;
    t.is(code, 1);
    t.regex(stderr, /Disk quota exceeded/);
    // Clients learn of the others' use, and of what was freed, within seconds: a quota may be overrun by that much.
    t.true(Number(await sh(`stat -c %s ${path}/big${way}`)) < 3 * QUOTA);
    await sh(`rm ${path}/big${way}`);
    await until('there is room again', 20_000, () =>
      sh(`dd if=/dev/zero of=${path}/small bs=1M count=1 conv=fsync 2>/dev/null && rm ${path}/small`).then(
        () => true,
        () => false,
      ),
    );
  });
}
