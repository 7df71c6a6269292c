/**
 * The fast path under deaths: programs under `poly run` that check every answer go on while services are killed, and while
 * other programs are; and nothing of the dead is left.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { poly, run } from '../server/cli_harness.ts';
import { temporary, until } from '../server/helpers.ts';
import { mountReal, realSite, sh } from '../server/real.ts';
import {
  assertNothingLeft,
  assertRight,
  census,
  full,
  inUse,
  killAndWait,
  Probe,
  randomBetween,
  real,
  runningService,
  storms,
  Workload,
  type Mount,
  type Mounts,
} from './harness.ts';

/** One in memory and one on the host, each with a service of its own. */
async function bothMounts(t: ExecutionContext): Promise<Mounts> {
  const { site, root } = realSite(t, { POLY_RESTART_BURST: '1000' });
  const client = await site.start();
  const mounts: Mount[] = [];
  for (const spec of ['memory', `local:${temporary(t, 'poly-fault-')}`]) {
    const path = join(root, spec.slice(0, 6));
    const { service } = await mountReal(site, client, path, spec);
    mounts.push({ path, service });
  }
  return { site, client, mounts };
}

/** It is the fast path that is tested. */
async function untilAttached({ site }: Mounts): Promise<void> {
  await until('programs are attached', 10_000, async () => (await inUse(site)).clients >= 8);
}

/** Kills the service of one mount again and again, for as long as programs run there. */
async function killServices(
  { client }: Mounts,
  mount: Mount,
  kills: number,
  workload: Workload,
): Promise<number> {
  let done = 0;
  for (; done < kills && workload.running; done++) {
    await sleep(randomBetween(0, 250));
    await killAndWait(await runningService(client, mount.service));
  }
  return done;
}

async function servicesKilled(t: ExecutionContext, kills: number): Promise<void> {
  t.timeout(kills * 4000 + 120_000);
  const all = await bothMounts(t);
  // Each has a predecessor from the beginning, so that what a successor holds anyway is no leak.
  for (const { service } of all.mounts) await killAndWait(await runningService(all.client, service));
  const before = await census(all);
  const workloads = all.mounts.map(({ path }) => new Workload(t, path, { seconds: 3600, fast: all.site }));
  await untilAttached(all);
  const done = await Promise.all(
    all.mounts.map((mount, i) => killServices(all, mount, kills, workloads[i] as Workload)),
  );
  for (const workload of workloads) workload.stop();
  for (const workload of workloads) await assertRight(t, workload);
  t.deepEqual(done, [kills, kills]);
  // What successors keep in memory only is not looked at, but what they have taken up.
  for (const { service } of all.mounts) await killAndWait(await runningService(all.client, service));
  for (const { path } of all.mounts) await new Probe(t, path).ask();
  await assertNothingLeft(t, all, before);
}

/** Programs that are killed at any moment, beside programs that are not. */
async function clientsKilled(t: ExecutionContext, kills: number): Promise<void> {
  t.timeout(kills * 2000 + 120_000);
  const all = await bothMounts(t);
  const workload = (path: string, only?: string): Workload =>
    new Workload(t, path, { seconds: 3600, fast: all.site, ...(only !== undefined && { only }) });
  // Once, so that whatever is made at first use exists.
  const first = all.mounts.map(
    ({ path }) => new Workload(t, path, { seconds: 1, fast: all.site, only: 'append' }),
  );
  for (const one of first) await assertRight(t, one);
  const before = await census(all);
  const survivors = all.mounts.map(({ path }) => workload(path, 'counter,removed,readdir'));
  const victims = all.mounts.map(({ path }) => workload(path, 'victims'));
  await untilAttached(all);
  await until('enough are killed', kills * 2000, () => victims.every((one) => one.killed >= kills));
  for (const one of [...victims, ...survivors]) one.stop();
  for (const one of [...victims, ...survivors]) await assertRight(t, one);
  await assertNothingLeft(t, all, before);
}

const FORKS = `
import os, sys
socket, directory = sys.argv[1:]
def write(name):
    fd = os.open(directory + '/' + name, os.O_CREAT | os.O_WRONLY)
    os.write(fd, name.encode())
    os.close(fd)
os.rename(socket, socket + '.away')
write('parent')
os.rename(socket + '.away', socket)
child = os.fork()
if child == 0:
    write('child')
    os._exit(0)
print(os.waitpid(child, 0)[1])
`;

real('a forked program finds the service that its parent has not found', async (t) => {
  const { site, mounts } = await bothMounts(t);
  for (const { path, service } of mounts) {
    const words = ['/usr/bin/python3', '-c', FORKS, site.dir.attachSocket(service), path];
    const { stdout, stderr } = await run(process.execPath, [poly, 'run', '--', ...words], site.env);
    t.deepEqual([stdout, stderr], ['0\n', '']);
    t.is(await sh(`cat ${path}/parent ${path}/child`), 'parentchild');
  }
});

real('2 x 20 programs under poly run killed', (t) => clientsKilled(t, 20));
real('2 x 8 kills of the services of programs under poly run', (t) => servicesKilled(t, 8));
real('2 x 60 kills of the services of programs under poly run', (t) => servicesKilled(t, 60), {
  only: full,
});
real('2 x 250 kills of the services of programs under poly run', (t) => servicesKilled(t, 250), storms);
real('2 x 250 programs under poly run killed', (t) => clientsKilled(t, 250), storms);
