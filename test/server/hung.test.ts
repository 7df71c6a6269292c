/** A service that does not answer: told, got rid of within bounds, and nobody else's business. */
import test, { type ExecutionContext } from 'ava';
import { writeFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { failure, fakeSite, isRunning, mount, status, until, type Client } from './helpers.ts';
import { missing, mountReal, realSite, sh } from './real.ts';

const POLY = fileURLToPath(new URL('../../../server/bin/poly.js', import.meta.url));

const reason = missing();
const real = (title: string, body: (t: ExecutionContext) => Promise<void>): void => {
  if (reason === undefined) test.serial(title, body);
  else test.serial.skip(`${title} (${reason})`, body);
};

async function stateOf(client: Client, service: number): Promise<string | undefined> {
  return (await status(client)).services.find(({ id }) => id === service)?.state;
}

async function pidOf(client: Client, service: number): Promise<number> {
  return (await status(client)).services.find(({ id }) => id === service)?.pid ?? 0;
}

real('a stopped service is told, others serve on, and its mounts can be unmounted', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const [a, b, c] = [join(root, 'a'), join(root, 'b'), join(root, 'c')];
  const { service } = await mountReal(site, client, a, 'memory', { pool: 'p' });
  await mountReal(site, client, b, 'memory', { pool: 'p' });
  await mountReal(site, client, c, 'memory');
  const pid = await pidOf(client, service);
  process.kill(pid, 'SIGSTOP');
  t.teardown(() => {
    if (isRunning(pid)) process.kill(pid, 'SIGKILL');
  });
  const { services, silent } = await client.request('stats', {}); // It does not count as hung yet.
  t.deepEqual(silent, [service]);
  t.deepEqual(
    services.flatMap(({ instances }) => instances.map(({ path }) => path)),
    [c],
  );
  await until('told', 15_000, async () => (await stateOf(client, service)) === 'hung');
  t.deepEqual(
    (await client.request('mount.list', {})).map(({ state }) => state),
    ['hung', 'hung', 'mounted'],
  );
  const begin = Date.now();
  t.deepEqual((await client.request('stats', {})).silent, [service]);
  t.is(await sh(`echo x > ${c}/f; cat ${c}/f`), 'x\n');
  t.regex(await failure(mountReal(site, client, join(root, 'd'), 'memory', { pool: 'p' })), /hangs/);
  t.true(Date.now() - begin < 5000);
  await sh(`umount -l ${root}/d`).catch(() => undefined);
  // Ours: umount(8) asks the mount for its name, and waits.
  const umount = `POLY_RUN_DIR=${site.dir.path} ${process.execPath} ${POLY} umount`;
  t.is(await sh(`${umount} ${a} 2>&1`, 20_000), '');
  process.kill(pid, 'SIGCONT');
  await until('it answers again', 10_000, async () => (await stateOf(client, service)) === 'running');
  t.is(await sh(`echo y > ${b}/f; cat ${b}/f`), 'y\n');
  process.kill(pid, 'SIGSTOP');
  t.is(await sh(`${umount} ${b} 2>&1`, 20_000), '');
  await until('killed', 10_000, () => !isRunning(pid));
  await until('forgotten', 5_000, async () => (await stateOf(client, service)) === undefined);
});

test.serial('a service whose JavaScript spins is told, and killed when it is stopped', async (t) => {
  const { site, control } = fakeSite(t);
  const client = await site.start();
  const { service } = await mount(client, '/a', 'memory');
  const pid = await pidOf(client, service);
  writeFileSync(join(control, 'spin'), 'yes');
  const asked = client.request('mount.remount', { path: '/a', options: { ro: true } });
  asked.catch(() => undefined); // Told where it is awaited.
  await until('told', 15_000, async () => (await stateOf(client, service)) === 'hung');
  rmSync(join(control, 'spin'));
  await asked;
  await until('it answers again', 10_000, async () => (await stateOf(client, service)) === 'running');
  t.regex(site.log(), /hangs: no answer[^]*answers again/);
  writeFileSync(join(control, 'spin'), 'yes');
  client.request('mount.remount', { path: '/a', options: { rw: true } }).catch(() => undefined);
  await client.request('mount.forget', { path: '/a' });
  await until('killed', 10_000, () => !isRunning(pid));
});
