/** Mount requests over the fake addon: outcomes, prefixes, nesting, failures, and the life of services around them. */
import test from 'ava';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { failure, fakeSite, isRunning, mount, status, until } from './helpers.ts';

test.serial('the three outcomes', async (t) => {
  const { site } = fakeSite(t);
  const client = await site.start();
  const first = await mount(client, '/mnt/a', 'memory:x');
  t.is(first.outcome, 'new-service');
  const again = await mount(client, '/mnt/a', 'memory:x');
  t.like(again, { outcome: 'full-match', service: first.service, instance: first.instance, mount: 0 });
  t.is(await failure(mount(client, '/mnt/a', 'memory:y')), 'EBUSY /mnt/a: memory:x is mounted there');
  t.regex(await failure(mount(client, '/mnt/a', 'memory')), /^EBUSY/);
  const alone = await mount(client, '/mnt/a/inner', 'memory:x');
  t.is(alone.outcome, 'new-service');
  t.not(alone.service, first.service);
  const shared = await mount(client, '/mnt/a/other', 'memory:x', { share: true });
  t.like(shared, { outcome: 'shared', service: first.service });
  const sibling = await mount(client, '/mnt/a/third', 'memory:y', { share: true });
  t.like(sibling, { outcome: 'shared', service: first.service });
  const nowhere = await mount(client, '/elsewhere', 'memory:x', { share: true });
  t.is(nowhere.outcome, 'new-service');
  const list = await client.request('mount.list', {});
  const shares = Object.fromEntries(list.map((info) => [info.path, info.shares]));
  t.deepEqual(shares, {
    '/mnt/a': ['/mnt/a/other'],
    '/mnt/a/inner': [],
    '/mnt/a/other': ['/mnt/a'],
    '/mnt/a/third': [],
    '/elsewhere': [],
  });
});

test.serial('prefixes are whole components, and the longest one counts', async (t) => {
  const { site } = fakeSite(t);
  const client = await site.start();
  const a = await mount(client, '/a', 'memory');
  t.is((await mount(client, '/ab', 'memory', { share: true })).outcome, 'new-service');
  t.is((await mount(client, '/b/a', 'memory', { share: true })).outcome, 'new-service');
  const deep = await mount(client, '/a/b/c', 'memory');
  t.like(await mount(client, '/a/b/c/d/e', 'memory', { share: true }), {
    outcome: 'shared',
    service: deep.service,
  });
  t.like(await mount(client, '/a/b/cc', 'memory', { share: true }), {
    outcome: 'shared',
    service: a.service,
  });
  t.is(await client.request('mount.find', { path: '/a/b' }), null);
  t.like(await client.request('mount.find', { path: '/a/b/c' }), { service: deep.service, spec: 'memory' });
});

test.serial('the mounts of a pool have one service', async (t) => {
  const { site } = fakeSite(t);
  const client = await site.start();
  const first = await mount(client, '/a', 'memory:x', { pool: 'tenant' });
  const second = await mount(client, '/b', 'memory:x', { pool: 'tenant' });
  const other = await mount(client, '/c', 'memory:x', { pool: 'tenant2' });
  t.deepEqual([first.outcome, second.outcome, other.outcome], ['new-service', 'shared', 'new-service']);
  t.is(second.service, first.service);
  t.like(await client.request('mount.find', { path: '/b' }), { shares: ['/a'], pool: 'tenant' });
  t.regex(
    await failure(mount(client, '/d', 'memory:x', { pool: 'tenant', size: '5m' })),
    /^EINVAL option size: memory:x exists/,
  );
});

test.serial('a service polls, or does not, from its start', async (t) => {
  const { site } = fakeSite(t);
  const client = await site.start();
  await mount(client, '/a', 'memory:x', { pool: 'tenant', poll: '0' });
  t.is((await mount(client, '/b', 'memory:x', { pool: 'tenant', poll: '0' })).outcome, 'shared');
  t.is((await mount(client, '/c', 'memory:x', { pool: 'tenant' })).outcome, 'shared');
  t.regex(
    await failure(mount(client, '/d', 'memory:x', { pool: 'tenant', poll: '1' })),
    /^EBUSY option poll=1: service 1 polls on CPU 0$/,
  );
  await mount(client, '/e', 'memory', { pool: 'other' });
  t.regex(
    await failure(mount(client, '/f', 'memory', { pool: 'other', poll: '0' })),
    /^EBUSY option poll=0: service 2 does not poll$/,
  );
  t.regex(await failure(mount(client, '/g', 'memory', { poll: '1023' })), /^EINVAL option poll=1023: /);
});

test.serial('configured filesystems, their options and pools', async (t) => {
  const { site } = fakeSite(t);
  mkdirSync(join(site.dir.path, 'config'));
  writeFileSync(
    join(site.dir.path, 'config', 'a.toml'),
    '[filesystem.web]\ntype = "local"\nsource = "/srv/web"\noptions = "ro,nosuid"\n',
  );
  const client = await site.start();
  const prepared = await mount(client, '/srv/app', 'web/app', { noexec: true });
  t.deepEqual(prepared.flags, { ro: true, nosuid: true, noexec: true });
  t.is(prepared.source, 'web/app');
  t.like(await client.request('mount.find', { path: '/srv/app' }), {
    type: 'local',
    readOnly: true,
    spec: 'web/app',
  });
  t.regex(
    await failure(mount(client, '/x', 'nosuch')),
    /^ENOENT no filesystem named "nosuch" \(configured: web/,
  );
  writeFileSync(join(site.dir.path, 'config', 'b.toml'), 'bogus = [');
  t.regex(await failure(mount(client, '/x', 'web')), /b\.toml/);
  t.is((await mount(client, '/y', 'memory')).outcome, 'new-service');
});

test.serial('bad requests are named and start nothing', async (t) => {
  const { site } = fakeSite(t);
  const client = await site.start();
  t.regex(
    await failure(mount(client, '/a', 'memory', { bogus: true })),
    /^EINVAL unknown mount option: bogus/,
  );
  t.regex(
    await failure(mount(client, '/a', 'local:/srv', { size: '1m' })),
    /^EINVAL option size: only for memory/,
  );
  t.regex(await failure(mount(client, 'a', 'memory')), /^EINVAL mount\.prepare: path: path must be absolute/);
  t.regex(await failure(mount(client, '/a/../b', 'memory')), /normal form/);
  t.regex(
    await failure(client.request('mount.commit', { mount: 77, device: '0:1', mountId: 1 })),
    /^ENOENT no mount 77/,
  );
  await t.notThrowsAsync(client.request('mount.forget', { path: '/a' }), 'it may have ended meanwhile');
  t.regex(await failure(client.request('stats', { path: '/a' })), /^EINVAL/);
  await mount(client, '/a', 'memory');
  t.regex(
    await failure(mount(client, '/b', 'local:/a/sub')),
    /^EINVAL local:\/a\/sub: lies in the poly mount \/a/,
  );
  t.is((await status(client)).services.length, 1);
});

test.serial(
  'a prepared mount ends with its connection, or by abort; nobody else may commit it',
  async (t) => {
    const { site } = fakeSite(t);
    const client = await site.start();
    const other = await site.connect();
    const prepared = await other.request('mount.prepare', { path: '/a', spec: 'memory', options: {} });
    t.regex(
      await failure(client.request('mount.commit', { mount: prepared.mount, device: '0:1', mountId: 1 })),
      /^ENOENT/,
    );
    t.regex(await failure(mount(client, '/a', 'memory')), /^EBUSY .*another mount request/);
    other.socket.destroy();
    await until('aborted', 3000, async () => (await status(client)).services.length === 0);
    const second = await client.request('mount.prepare', { path: '/a', spec: 'memory', options: {} });
    await client.request('mount.abort', { mount: second.mount });
    await until('aborted', 3000, async () => (await status(client)).services.length === 0);
    t.is((await mount(client, '/a', 'memory')).outcome, 'new-service');
  },
);

test.serial('an instance the service cannot serve fails the commit and leaves nothing', async (t) => {
  const { site, control } = fakeSite(t);
  const client = await site.start();
  writeFileSync(join(control, 'fail-instance-1'), 'EACCES');
  t.regex(await failure(mount(client, '/a', 'memory')), /^EACCES memory on \/a: .*EACCES/);
  t.deepEqual(await client.request('mount.list', {}), []);
  await until('service gone', 3000, async () => (await status(client)).services.length === 0);
});

test.serial('a full mount table is ENOSPC, and everything else lives on', async (t) => {
  const { site } = fakeSite(t, { POLY_FAKE_TABLE: '2' });
  const client = await site.start();
  await mount(client, '/a', 'memory', { pool: 'p' });
  await mount(client, '/b', 'memory', { pool: 'p' });
  t.regex(await failure(mount(client, '/c', 'memory', { pool: 'p' })), /^ENOSPC memory on \/c/);
  t.is((await client.request('mount.list', {})).length, 2);
  await client.request('mount.forget', { path: '/b' });
  t.is((await mount(client, '/c', 'memory', { pool: 'p' })).outcome, 'shared');
});

test.serial('an unmount the service sees ends the mount, its last one the service', async (t) => {
  const { site, control } = fakeSite(t);
  const client = await site.start();
  await mount(client, '/a', 'memory', { pool: 'p' });
  const b = await mount(client, '/b', 'memory', { pool: 'p' });
  const pid = (await status(client)).services[0]?.pid ?? 0;
  t.true(isRunning(pid));
  const gone = client.request('mount.gone', { path: '/b', timeoutMs: 5000 });
  writeFileSync(join(control, `ended-${String(b.instance)}`), 'unmounted');
  await gone;
  t.deepEqual(
    (await client.request('mount.list', {})).map((info) => info.path),
    ['/a'],
  );
  t.true(isRunning(pid));
  writeFileSync(join(control, 'ended-1'), 'unmounted');
  await client.request('mount.gone', { path: '/a', timeoutMs: 5000 });
  await until('service ended', 3000, () => !isRunning(pid));
  await until('forgotten', 3000, async () => (await status(client)).services.length === 0);
  t.regex(await failure(client.request('mount.gone', { path: '/never', timeoutMs: 0 })), /no error/);
});

test.serial('a connection that broke is a failed mount, which unmounting clears', async (t) => {
  const { site, control } = fakeSite(t);
  const client = await site.start();
  await mount(client, '/a', 'memory');
  writeFileSync(join(control, 'ended-1'), 'error');
  await until(
    'failed',
    3000,
    async () => (await client.request('mount.find', { path: '/a' }))?.state === 'failed',
  );
  await client.request('mount.gone', { path: '/a', timeoutMs: 1000 });
  t.deepEqual(await client.request('mount.list', {}), []);
});

test.serial('remount changes ro and flags, and nothing else', async (t) => {
  const { site } = fakeSite(t);
  const client = await site.start();
  await mount(client, '/a', 'memory', { size: '1m', inodes: '100', nosuid: true });
  const { flags } = await client.request('mount.remount', { path: '/a', options: { ro: true, size: '1m' } });
  t.deepEqual(flags, { nosuid: true, ro: true });
  t.like(await client.request('mount.find', { path: '/a' }), { readOnly: true });
  t.deepEqual((await client.request('mount.remount', { path: '/a', options: { rw: true } })).flags, {
    nosuid: true,
    ro: false,
  });
  t.like(await client.request('mount.find', { path: '/a' }), { readOnly: false });
  t.regex(
    await failure(client.request('mount.remount', { path: '/a', options: { size: '2m' } })),
    /option size: cannot be changed/,
  );
});

test.serial('a killed service has a successor at once; a storm of deaths is slowed down', async (t) => {
  const { site } = fakeSite(t);
  const client = await site.start();
  await mount(client, '/a', 'memory');
  const running = async (not: number) => {
    const service = (await status(client)).services[0];
    return service?.state === 'running' && service.pid !== not ? service : undefined;
  };
  let pid = (await running(0))?.pid ?? 0;
  const times: number[] = [];
  for (let death = 1; death <= 7; death++) {
    const start = Date.now();
    process.kill(pid, 'SIGKILL');
    const next = await until('a successor', 5000, () => running(pid));
    times.push(Date.now() - start);
    t.is(next.restarts, death);
    pid = next.pid;
  }
  t.true(Math.min(...times.slice(0, 5)) < 1000, String(times));
  t.true(Math.min(...times.slice(5)) >= 1000, String(times));
  t.like(await client.request('mount.find', { path: '/a' }), { state: 'mounted' });
});

test.serial('a service that cannot start is given up with the reason', async (t) => {
  const { site, control } = fakeSite(t);
  const client = await site.start();
  writeFileSync(join(control, 'crash-at-start'), '');
  t.regex(
    await failure(mount(client, '/a', 'memory')),
    /^EIO .*service 1 does not start \(.*service-1\.log\)/,
  );
  t.deepEqual((await status(client)).services, []);
});

test.serial('stats name the mount paths', async (t) => {
  const { site } = fakeSite(t);
  const client = await site.start();
  await mount(client, '/a', 'memory', { pool: 'p' });
  await mount(client, '/b', 'memory', { pool: 'p' });
  const all = await client.request('stats', {});
  t.deepEqual(
    all.services.map((service) => service.instances.map((instance) => instance.path)),
    [['/a', '/b']],
  );
  const one = await client.request('stats', { path: '/b' });
  t.deepEqual(
    one.services.map((service) => service.instances.map((instance) => instance.path)),
    [['/b']],
  );
});
