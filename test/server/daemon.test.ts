/** polyd as a process, over the fake addon: hostile clients, its lock, its state, its end and its return. */
import test from 'ava';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fakeSite, isRunning, mount, status, until, type Site } from './helpers.ts';

async function rawSocket(site: Site): Promise<Socket> {
  const socket = connect(site.dir.controlSocket);
  socket.on('error', () => undefined);
  socket.resume();
  await once(socket, 'connect');
  return socket;
}

test.serial('hostile input: the daemon answers afterwards, and is the same process', async (t) => {
  const { site } = fakeSite(t);
  const client = await site.start();
  const { pid } = await status(client);
  for (let round = 0; round < 60; round++) {
    const socket = await rawSocket(site);
    socket.write(randomBytes(1 + Math.floor(Math.random() * 70_000)));
    if (round % 2 === 0) socket.destroy();
    else socket.end();
  }
  for (let round = 0; round < 5; round++) {
    const socket = await rawSocket(site);
    for (let i = 0; i < 40; i++) socket.write(Buffer.alloc(65_536, 0x61));
    await until('a huge line is cut off', 3000, () => socket.destroyed);
  }
  const methods = [
    'status',
    'mount.prepare',
    'mount.commit',
    'mount.remount',
    'mount.gone',
    'stop',
    '__proto__',
    'constructor',
  ];
  const values = [
    null,
    [],
    5,
    'x',
    true,
    { path: 5 },
    { path: '/a', spec: {}, options: [] },
    { mount: -1 },
    { mount: 1e99 },
    { mounts: 'x' },
  ];
  for (const method of methods) {
    for (const params of values) {
      const answer = await Promise.race([
        client.request(method as 'status', params as never).then(
          () => 'answered',
          () => 'refused',
        ),
        sleep(3000, 'silent'),
      ]);
      t.is(answer, 'refused', `${method} ${JSON.stringify(params)}`);
    }
  }
  const truncated = await rawSocket(site);
  truncated.end('{"jsonrpc":"2.0","id":1,"method":"stop","params":{"mounts":"ke');
  t.is((await status(client)).pid, pid);
});

test.serial('thousands of connections: the daemon answers afterwards', async (t) => {
  const { site } = fakeSite(t);
  const client = await site.start();
  const sockets: Socket[] = [];
  for (let i = 0; i < 3000; i++) {
    const socket = connect(site.dir.controlSocket);
    socket.on('error', () => undefined);
    socket.write('{"jsonrpc":"2.0","id":1,"method":"status","params":{}}\n{"half');
    sockets.push(socket);
    if (i % 100 === 0) await sleep(1);
  }
  await status(client);
  for (const socket of sockets) socket.destroy();
  await until('a new client is served', 5000, async () => {
    const fresh = await site.connect().catch(() => undefined);
    const answer = await fresh?.request('status', {}, 1000).catch(() => undefined);
    fresh?.end();
    return answer;
  });
  t.is(site.child?.exitCode, null);
});

test.serial('one polyd per run directory, however many start at once', async (t) => {
  const { site } = fakeSite(t);
  const children = Array.from({ length: 5 }, () => site.spawn());
  const ended = () => children.filter((child) => child.exitCode !== null).length;
  await until('four give up', 10_000, () => ended() === 4);
  await sleep(200);
  t.is(ended(), 4);
  t.regex(site.stderr, /polyd: polyd already runs in .* \(pid \d+\)/);
  const living = children.find((child) => child.exitCode === null);
  t.is((await status(await site.connect())).pid, living?.pid ?? 0);
  living?.kill('SIGKILL');
});

test.serial('a stale socket and pid file do not stop a new polyd', async (t) => {
  const { site } = fakeSite(t);
  await site.start();
  await site.end('SIGKILL');
  writeFileSync(site.dir.pidFile, '1\n');
  t.truthy((await status(await site.start())).pid);
});

test.serial('SIGTERM: services live on, and the next polyd has them', async (t) => {
  const { site } = fakeSite(t);
  const first = await site.start();
  await mount(first, '/a', 'memory:x');
  await mount(first, '/b', 'memory', { pool: 'p', ro: true });
  const before = await status(first);
  const list = await first.request('mount.list', {});
  await site.end('SIGTERM');
  t.is(site.child?.exitCode, 0);
  t.true(before.services.every((service) => isRunning(service.pid)));
  const second = await site.start();
  const after = await status(second);
  t.deepEqual(
    after.services.map((service) => [service.id, service.pid, service.restarts, service.state]),
    before.services.map((service) => [service.id, service.pid, 0, 'running']),
  );
  t.deepEqual(await second.request('mount.list', {}), list);
  t.is(after.table.entries, 2);
  t.is((await mount(second, '/a', 'memory:x')).outcome, 'full-match');
});

test.serial('polyd and services killed together: all mounts are served again', async (t) => {
  const { site } = fakeSite(t);
  const first = await site.start();
  await mount(first, '/a', 'memory');
  await mount(first, '/b', 'memory');
  const before = await status(first);
  for (const pid of [before.pid, ...before.services.map((service) => service.pid)])
    process.kill(pid, 'SIGKILL');
  await site.end('SIGKILL');
  const second = await site.start();
  await until('recovered', 3000, async () => {
    const list = await second.request('mount.list', {});
    return list.length === 2 && list.every((info) => info.state === 'mounted');
  });
  t.deepEqual(
    (await status(second)).services.map((service) => service.restarts),
    [1, 1],
  );
});

test.serial('what happens while polyd is away is told when it is back', async (t) => {
  const { site, control } = fakeSite(t);
  const first = await site.start();
  await mount(first, '/a', 'memory', { pool: 'p' });
  await mount(first, '/b', 'memory', { pool: 'p' });
  await site.end('SIGKILL');
  writeFileSync(`${control}/ended-2`, 'unmounted');
  await sleep(100);
  const second = await site.start();
  await until('/b dropped', 3000, async () => (await second.request('mount.list', {})).length === 1);
  t.like((await second.request('mount.list', {}))[0], { path: '/a', state: 'mounted' });
});

test.serial(
  'a damaged state file: one clear error, a copy, and services are not lost from sight',
  async (t) => {
    const { site } = fakeSite(t);
    const first = await site.start();
    await mount(first, '/a', 'memory');
    const before = await status(first);
    await site.end('SIGTERM');
    const text = readFileSync(site.dir.stateFile, 'utf8');
    writeFileSync(site.dir.stateFile, text.slice(0, text.length / 2));
    const second = await site.start();
    const errors = site
      .log()
      .split('\n')
      .filter((line) => line.includes('"level":50'));
    t.is(errors.length, 1);
    t.regex(errors[0] ?? '', /state\.json: damaged .* kept as /);
    const copy = readdirSync(site.dir.path).find((name) => name.startsWith('state.json.damaged-'));
    t.is(readFileSync(`${site.dir.path}/${copy ?? ''}`, 'utf8'), text.slice(0, text.length / 2));
    // The fake has no table that survives, so nothing tells what the service was for: it is ended, its id not used again.
    await until('orphan ended', 3000, () => before.services.every((service) => !isRunning(service.pid)));
    const fresh = await mount(second, '/a', 'memory');
    t.true(fresh.service > (before.services[0]?.id ?? 0));
  },
);

test.serial('stop: "keep" leaves services, "unmount" needs no mounts and ends them', async (t) => {
  const { site } = fakeSite(t);
  const first = await site.start();
  await mount(first, '/a', 'memory');
  const pid = (await status(first)).services[0]?.pid ?? 0;
  await t.throwsAsync(first.request('stop', { mounts: 'unmount' }), { message: 'still mounted: /a' });
  await first.request('stop', { mounts: 'keep' });
  await until('polyd ends', 3000, () => site.child?.exitCode === 0);
  t.true(isRunning(pid));
  const second = await site.start();
  await second.request('mount.forget', { path: '/a' });
  await second.request('stop', { mounts: 'unmount' });
  await until('polyd ends', 3000, () => site.child?.exitCode === 0);
  await until('service ends', 3000, () => !isRunning(pid));
});

for (const how of ['alone in its service', 'beside another mount', 'stopped with the daemon']) {
  test.serial(`a backend that takes its time to be left is given it (${how})`, async (t) => {
    const { site, control } = fakeSite(t);
    const client = await site.start();
    const pool = how === 'beside another mount' ? { pool: 'p' } : {};
    const { instance, service } = await mount(client, '/a', 'memory', pool);
    if (pool.pool) t.is((await mount(client, '/b', 'memory', pool)).service, service);
    const pid = (await status(client)).services[0]?.pid ?? 0;
    writeFileSync(join(control, 'leave-ms'), '6000');
    writeFileSync(join(control, 'lost'), 'something may be lost');
    const begin = Date.now();
    let left: Promise<unknown>;
    if (how === 'stopped with the daemon') {
      await client.request('mount.forget', { path: '/a' });
      left = client.request('stop', { mounts: 'unmount' });
    } else {
      left = client.request('mount.gone', { path: '/a', timeoutMs: 3000 });
      writeFileSync(join(control, `ended-${String(instance)}`), 'unmounted');
    }
    await sleep(1000);
    t.deepEqual(
      (await client.request('mount.list', {})).map(({ path }) => path),
      pool.pool ? ['/b'] : [],
    );
    if (pool.pool) await mount(client, '/c', 'memory', pool);
    await left;
    t.true(Date.now() - begin >= 5900);
    await until('what may be lost is told', 2000, () => site.log().includes('something may be lost'));
    if (pool.pool) t.true(isRunning(pid));
    else await until('the service ends', 3000, () => !isRunning(pid));
  });
}

test.serial('a missing addon and a bad run directory are one line each', async (t) => {
  const { site } = fakeSite(t, { POLY_ADDON: '/nonexistent.node' });
  const child = site.spawn();
  await once(child, 'exit');
  t.is(child.exitCode, 1);
  t.regex(site.stderr, /^polyd: cannot load \/nonexistent\.node .*\n$/);
  const bad = fakeSite(t, { POLY_RUN_DIR: '/dev/null' }).site;
  const second = bad.spawn();
  await once(second, 'exit');
  t.is(second.exitCode, 1);
  t.regex(bad.stderr, /^polyd: run directory \/dev\/null: .*\n$/);
});
