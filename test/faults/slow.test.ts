/** One slow backend never stops the others: a local mount whose host filesystem does not answer for a while. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { isRunning, status, temporary, until, type Client } from '../server/helpers.ts';
import { abortConnection, mountLines, mountReal, realSite, sh } from '../server/real.ts';
import { median, Probe, real, runningService, whyNot } from './harness.ts';

const bindfs =
  ['/usr/bin/bindfs', '/usr/local/bin/bindfs'].find((path) => existsSync(path)) ?? '/usr/bin/bindfs';
const reason = whyNot(bindfs);
/** More than a service has threads. */
const PROGRAMS = 80;

interface Slow {
  directory: string;
  freeze: () => void;
  thaw: () => void;
}

/** bindfs over a directory of files, to be frozen. */
async function slowDirectory(t: ExecutionContext): Promise<Slow> {
  const source = temporary(t, 'poly-fast-');
  const directory = temporary(t, 'poly-slow-');
  await sh(`for i in $(seq ${String(PROGRAMS)}); do echo $i > ${source}/f$i; done`);
  const server = spawn(bindfs, ['-f', source, directory], { stdio: 'ignore' });
  t.teardown(async () => {
    server.kill('SIGCONT');
    await sh(`umount -l ${directory}`).catch(() => undefined);
    server.kill('SIGKILL');
  });
  await until('bindfs serves', 5000, () => mountLines().some((line) => line.path === directory));
  return {
    directory,
    freeze: () => server.kill('SIGSTOP'),
    thaw: () => server.kill('SIGCONT'),
  };
}

interface Mounts {
  client: Client;
  slow: Slow;
  /** Over the slow backend, and in memory; one service. */
  a: string;
  b: string;
}

async function twoMounts(t: ExecutionContext): Promise<Mounts> {
  const slow = await slowDirectory(t);
  const { site, root } = realSite(t);
  const client = await site.start();
  const [a, b] = [join(root, 'a'), join(root, 'b')];
  mkdirSync(a);
  await mountReal(site, client, a, `local:${slow.directory}`, { pool: 'p', attr_timeout: '0' });
  await mountReal(site, client, b, 'memory', { pool: 'p' });
  t.is((await status(client)).services.length, 1);
  return { client, slow, a, b };
}

function startReaders(
  t: ExecutionContext,
  directory: string,
): { children: ChildProcess[]; done: Promise<string[]> } {
  const children = Array.from({ length: PROGRAMS }, (_, i) =>
    spawn('cat', [join(directory, `f${String(i + 1)}`)], { stdio: ['ignore', 'pipe', 'ignore'] }),
  );
  t.teardown(() => {
    for (const child of children) child.kill('SIGKILL');
  });
  const done = Promise.all(
    children.map(async (child) => {
      let text = '';
      child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      await new Promise((resolve) => child.once('close', resolve));
      return text.trim();
    }),
  );
  return { children, done };
}

real(
  'a frozen backend holds up its own mount only, and everything is answered when it thaws',
  async (t) => {
    const { client, slow, a, b } = await twoMounts(t);
    const pid = await runningService(client);
    // Open before the freeze, closed and removed during it: RELEASE and FORGET of the other mount.
    const work = `for i in $(seq 30); do echo x > ${b}/g$i; cat ${b}/g$i; rm ${b}/g$i; done`;
    slow.freeze();
    const readers = startReaders(t, a);
    await sleep(1000);
    const probe = new Probe(t, b);
    const times: number[] = [];
    for (let i = 0; i < 20; i++) times.push(await probe.ask());
    t.log(`the other mount answers in ${median(times).toFixed(1)} ms`);
    t.true(median(times) < 200);
    t.is((await sh(work)).length, 60);
    const [stats] = (await client.request('stats', {})).services;
    t.true((stats?.threads ?? 1000) <= 66, `${String(stats?.threads)} threads`);
    t.true(readers.children.every((child) => child.exitCode === null));
    slow.thaw();
    t.deepEqual(
      await readers.done,
      readers.children.map((_, i) => String(i + 1)),
    );
    t.is(await runningService(client), pid);
    t.is((await status(client)).services[0]?.restarts, 0);
  },
  { reason },
);

real(
  'clients of a frozen backend that are killed go when it thaws, and leave nothing',
  async (t) => {
    const { client, slow, a } = await twoMounts(t);
    slow.freeze();
    const readers = startReaders(t, a);
    await sleep(500);
    for (const child of readers.children) child.kill('SIGKILL');
    await sleep(300);
    slow.thaw();
    await readers.done;
    await until('no file is open any more', 5000, async () => {
      const { services } = await client.request('stats', {});
      return services[0]?.instances.every((instance) => instance.openFiles === 0);
    });
    t.is(await sh(`cat ${a}/f7`), '7\n');
  },
  { reason },
);

real(
  'a service with a frozen backend can be stopped',
  async (t) => {
    const { client, slow, a, b } = await twoMounts(t);
    const pid = await runningService(client);
    slow.freeze();
    startReaders(t, a);
    await sleep(500);
    await sh(`umount ${b}`);
    const line = mountLines().find((mount) => mount.path === a);
    abortConnection(line?.device ?? '');
    await sh(`umount -l ${a}`);
    await until('the service has ended', 15_000, () => !isRunning(pid) || isDying(pid));
    slow.thaw();
    await until('its process is gone', 5000, () => !isRunning(pid));
    t.deepEqual(await client.request('mount.list', {}), []);
  },
  { reason },
);

/** Killed, and only waiting for the host filesystem to give its threads back. */
function isDying(pid: number): boolean {
  try {
    return /^SigPnd:\s*0*[1-9a-f]|^ShdPnd:\s*0*[1-9a-f]/m.test(
      readFileSync(`/proc/${String(pid)}/status`, 'utf8'),
    );
  } catch {
    return true;
  }
}
