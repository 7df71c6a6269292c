/** What happens behind our back: on the host below a local mount, and to the connection itself. */
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { isRunning, status, temporary, until, type Client } from '../server/helpers.ts';
import { abortConnection, mountLines, mountReal, realSite, sh } from '../server/real.ts';
import { full, real, runningService } from './harness.ts';

interface Mounts {
  client: Client;
  source: string;
  /** The local mount, and one in memory that keeps its service. */
  path: string;
  other: string;
}

async function mounts(t: ExecutionContext): Promise<Mounts> {
  const { site, root } = realSite(t);
  const client = await site.start();
  const source = temporary(t, 'poly-host-');
  const path = join(root, 'm');
  const other = join(root, 'other');
  await mountReal(site, client, other, 'memory', { pool: 'p' });
  await mountReal(site, client, path, `local:${source}`, { pool: 'p' });
  return { client, source, path, other };
}

const GONE = /No such file|Stale file handle/;

real('host files that are removed, moved and replaced: ENOENT or ESTALE, never another file', async (t) => {
  const { client, source, path } = await mounts(t);
  mkdirSync(join(source, 'd'));
  for (const name of ['open', 'known', 'd/inner']) writeFileSync(join(source, name), `${name}\n`);
  // Open before, removed on the host, read after.
  t.is(await sh(`exec 3<${path}/open; rm ${source}/open; cat <&3`), 'open\n');
  await sh(`cat ${path}/known ${path}/d/inner; rm ${source}/known`);
  await t.throwsAsync(sh(`cat ${path}/known`), { message: GONE });
  // Standing in a directory that becomes a link to the root of the host.
  const stand = `cd ${path}/d; ls; rm -r ${source}/d; ln -s / ${source}/d`;
  await t.throwsAsync(sh(`${stand}; cat proc/version`), { message: GONE });
  await sleep(1100);
  t.is(await sh(`readlink ${path}/d`), '/\n');
  rmSync(join(source, 'd'));
  symlinkSync('../../../../proc', join(source, 'up'));
  t.is(await sh(`readlink ${path}/up`), '../../../../proc\n');
  mkdirSync(join(source, 'e'));
  writeFileSync(join(source, 'e', 'f'), 'f\n');
  t.is(await sh(`cat ${path}/e/f; mv ${source}/e ${source}/g; sleep 1.1; cat ${path}/g/f`), 'f\nf\n');
  await t.throwsAsync(sh(`cat ${path}/e/f`), { message: GONE });
  t.is((await status(client)).services[0]?.restarts, 0);
});

real('a host tree that changes all the time does not harm the service', async (t) => {
  const { client, source, path, other } = await mounts(t);
  const pid = await runningService(client);
  const end = Date.now() + (full ? 20_000 : 4000);
  const round = (
    base: string,
  ): string => `cd ${base}; for i in 1 2 3 4 5; do mkdir -p a$i/b; echo $i > a$i/b/f; done;
    mv a1 a2/ || :; rm -rf a3; ln -sfn /proc a3; mv a4/b a5/c || :; cat a*/b/f a5/c/f; find . | wc -l; rm -rf a1 a2 a3`;
  const loop = async (base: string): Promise<void> => {
    // Errors are to be expected, hanging and crashing is not.
    while (Date.now() < end) await sh(`(${round(base)}) >/dev/null 2>&1 || :`);
  };
  await Promise.all([loop(path), loop(source), loop(path), loop(source)]);
  t.is(await sh(`echo sound > ${other}/f; cat ${other}/f`), 'sound\n');
  await sleep(1100);
  await sh(`rm -rf ${source}/*; mkdir ${path}/new; ls ${path}`);
  t.is(await runningService(client), pid);
});

function openFds(pid: number): number {
  return readdirSync(`/proc/${String(pid)}/fd`).length;
}

/** Descriptors of the service and of the keeper. */
async function census(client: Client): Promise<{ service: number; keeper: number }> {
  const pid = await runningService(client);
  return { service: openFds(pid), keeper: openFds((await status(client)).keeper.pid) };
}

/** Waits until both are as they were. */
async function settled(client: Client, before: { service: number; keeper: number }): Promise<void> {
  await until(`descriptors are back at ${JSON.stringify(before)}`, 10_000, async () => {
    const now = await census(client);
    return now.service <= before.service && now.keeper <= before.keeper;
  });
}

function deviceOf(path: string): string {
  return mountLines().findLast((line) => line.path === path)?.device ?? '';
}

async function localMount(
  t: ExecutionContext,
): Promise<
  Omit<Mounts, 'source'> & { before: Awaited<ReturnType<typeof census>>; again: () => Promise<void> }
> {
  const { site, root } = realSite(t);
  const client = await site.start();
  const source = temporary(t, 'poly-host-');
  const path = join(root, 'm');
  const other = join(root, 'other');
  await mountReal(site, client, other, 'memory', { pool: 'p' });
  const again = async (): Promise<void> => {
    await mountReal(site, client, path, `local:${source}`, { pool: 'p' });
  };
  // Once, so that whatever is made at first use exists.
  await again();
  await sh(`umount ${path}`);
  await client.request('mount.gone', { path, timeoutMs: 5000 });
  return { client, path, other, before: await census(client), again };
}

real('an aborted connection: programs get errors, the service cleans up and goes on', async (t) => {
  const { client, path, other, before, again } = await localMount(t);
  await again();
  const busy = sh(
    `cd ${path}; exec 3>log; i=0; while [ $i -lt 100000 ]; do echo $i >&3; mkdir d$i; i=$((i+1)); done`,
    20_000,
  );
  const ended = t.throwsAsync(busy, { message: /not connected|connection abort|Input\/output|I\/O error/ });
  await sleep(300);
  abortConnection(deviceOf(path));
  await ended;
  await sh(`umount -l ${path}`);
  await client.request('mount.gone', { path, timeoutMs: 5000 });
  await settled(client, before);
  t.is(await sh(`echo sound > ${other}/f; cat ${other}/f`), 'sound\n');
  await again();
  t.is(await sh(`head -1 ${path}/log`), '0\n');
});

real('umount -l while busy: what is open goes on working, then everything is given back', async (t) => {
  const { client, path, before, again } = await localMount(t);
  await again();
  const user = sh(
    `cd ${path}; exec 3>>log; echo a >&3; sleep 1; echo b >&3; mkdir inside; cat log; ls; sleep 1`,
    20_000,
  );
  await sleep(500);
  await sh(`umount -l ${path}`);
  t.is(await user, 'a\nb\ninside\nlog\n');
  await settled(client, before);
});

async function cycles(t: ExecutionContext, count: number): Promise<void> {
  t.timeout(60_000 + count * 500);
  const { client, path, again } = await localMount(t);
  const cycle = async (): Promise<void> => {
    await again();
    await sh(`echo x > ${path}/f; ls ${path}; rm ${path}/f; umount ${path}`);
    await client.request('mount.gone', { path, timeoutMs: 5000 });
  };
  for (let i = 0; i < Math.min(20, count); i++) await cycle();
  const before = await census(client);
  const resident = async (): Promise<number> => (await status(client)).services[0]?.rss ?? 0;
  const start = await resident();
  for (let i = 0; i < count; i++) await cycle();
  await settled(client, before);
  const grown = ((await resident()) - start) / 2 ** 20;
  t.log(
    `${String(count)} cycles, descriptors ${JSON.stringify(before)}, the service grew by ${grown.toFixed(1)} MiB`,
  );
  t.true(grown < 8, 'memory');
  t.true(isRunning(await runningService(client)));
}

real('25 mounts and unmounts leave nothing behind', (t) => cycles(t, 25));
real('400 mounts and unmounts leave nothing behind', (t) => cycles(t, 400), { only: full });
