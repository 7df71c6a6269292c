/**
 * For fault tests: a daemon with real mounts, programs that use them and check every answer, and the killing of whatever
 * serves them meanwhile.
 */
import type { ExecutionContext } from 'ava';
import { spawn, type ChildProcess } from 'node:child_process';
import { constants, existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import test from 'ava';
import type { StatsResult } from '../../server/protocol.ts';
import { poly, run } from '../server/cli_harness.ts';
import { isRunning, status, until, type Client, type Site } from '../server/helpers.ts';
import { missing } from '../server/real.ts';

/** The programs of test/faults; POLY_FAULTS overrides the directory of the build. */
export const programs =
  process.env['POLY_FAULTS'] ?? fileURLToPath(new URL('../../../build/native/test/faults', import.meta.url));

export const workloadProgram = `${programs}/poly-fault-workload`;
/** Linked dynamically, to be run under `poly run`. */
const fastWorkloadProgram = `${workloadProgram}-dynamic`;

/** The long variants run where this is set. */
export const full = process.env['POLY_TEST_FULL'] === '1';

/** Options of tests that take many minutes, for who works on what they test (POLY_TEST_STORMS=1). */
export const storms = process.env['POLY_TEST_STORMS'] === '1' ? {} : { reason: 'POLY_TEST_STORMS=1' };

export function whyNot(...needed: string[]): string | undefined {
  const absent = [workloadProgram, ...needed].find((path) => !existsSync(path));
  return missing() ?? (absent === undefined ? undefined : `needs ${absent}`);
}

/** A test over real mounts, skipped with its reason where they cannot be made. */
export function real(
  title: string,
  body: (t: ExecutionContext) => Promise<void>,
  { only = true, reason = whyNot() }: { only?: boolean; reason?: string | undefined } = {},
): void {
  if (!only) test.serial.skip(`${title} (POLY_TEST_FULL=1)`, body);
  else if (reason === undefined) test.serial(title, body);
  else test.serial.skip(`${title} (${reason})`, body);
}

export interface WorkloadOptions {
  seconds: number;
  processes?: number;
  /** Areas of the workload (poly-fault-workload --list); all by default. */
  only?: string;
  /** The filesystem has neither O_TMPFILE nor renameat2's flags. */
  plain?: boolean;
  /** By the fast path, with the daemon of this site. */
  fast?: Site;
}

/** The workload, running. */
export class Workload {
  output = '';
  readonly ended: Promise<number | null>;
  private readonly child: ChildProcess;

  constructor(t: ExecutionContext, directory: string, options: WorkloadOptions) {
    const { seconds, processes = 2, only, plain = false, fast } = options;
    const seed = process.env['POLY_FAULT_SEED'];
    const args = [directory, '--seconds', String(seconds), '--processes', String(processes)];
    if (only !== undefined) args.push('--only', only);
    if (plain) args.push('--plain');
    if (seed !== undefined) args.push('--seed', seed);
    const command: [string, string[]] =
      fast === undefined
        ? [workloadProgram, args]
        : [process.execPath, [poly, 'run', '--', fastWorkloadProgram, ...args]];
    const child = spawn(...command, {
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
      ...(fast !== undefined && { env: fast.env }),
    });
    child.stdout.setEncoding('utf8').on('data', (text: string) => (this.output += text));
    this.ended = new Promise((resolve) => {
      child.once('close', (code) => {
        resolve(code);
      });
    });
    this.child = child;
    t.teardown(() => {
      // The whole process group: its processes must not outlive the mount's end.
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
    });
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  stop(): void {
    this.child.kill('SIGTERM');
  }

  /** Of the area "victims": how many were killed so far. */
  get killed(): number {
    const counts = [...this.output.matchAll(/^(\S+): (\d+) victims killed$/gm)];
    return Number(counts.at(-1)?.[2] ?? 0);
  }
}

/** Asserts that every answer the programs got was right. */
export async function assertRight(t: ExecutionContext, workload: Workload): Promise<void> {
  const code = await workload.ended;
  const told = workload.output.replace(/^\S+: \d+ victims killed\n(?=[^]*victims killed)/gm, '').trim();
  t.log(told);
  t.is(code, 0, told);
}

/** How long a mount does not answer: statfs(2) in a process of its own. */
export class Probe {
  private readonly child: ChildProcess;
  private readonly lines: AsyncIterator<string>;

  constructor(t: ExecutionContext, directory: string) {
    const child = spawn(workloadProgram, ['--probe', directory], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    this.child = child;
    t.teardown(() => {
      child.kill('SIGKILL');
    });
  }

  /** Milliseconds until the next answer; an error answer is an error. */
  async ask(): Promise<number> {
    this.child.stdin?.write('\n');
    const line = await Promise.race([this.lines.next(), sleep(20_000, undefined, { ref: false })]);
    const [error, took] = line?.done === false ? line.value.split(' ') : [];
    if (error !== '0') throw new Error(`statfs: ${error ?? 'no answer within 20 s'}`);
    return Number(took) / 1000;
  }
}

export function killed(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Died by itself meanwhile.
  }
}

export async function servicePid(client: Client, id?: number): Promise<number> {
  const { services } = await status(client);
  const service = services.find((one) => (id === undefined || one.id === id) && one.state === 'running');
  return service?.pid ?? 0;
}

/** Pid of the running service, waited for. polyd hears of a death a moment after it. */
export async function runningService(client: Client, id?: number): Promise<number> {
  return until('the service runs', 20_000, async () => {
    const pid = await servicePid(client, id);
    return isRunning(pid) ? pid : undefined;
  });
}

/** The end of `pid`, at once. */
export async function killAndWait(pid: number): Promise<void> {
  killed(pid);
  await until(`${String(pid)} is dead`, 5000, () => !isRunning(pid));
}

const O_PATH = 0o10000000;

/** Of O_PATH descriptors a service keeps some to find files sooner, of regular files opened to read some to open them. */
function isKept(flags: number, target: string): boolean {
  if ((flags & O_PATH) !== 0) return true;
  const readsFile =
    (flags & (constants.O_WRONLY | constants.O_RDWR | constants.O_DIRECTORY)) === constants.O_RDONLY;
  return readsFile && target.startsWith('/') && !target.startsWith('/dev/');
}

/** What a process has open, by kind, but for what it keeps; and the memory that clients share with it. */
export function holdings(pid: number): Record<string, number> {
  const counts: Record<string, number> = {};
  const add = (kind: string) => (counts[kind] = (counts[kind] ?? 0) + 1);
  for (const fd of readdirSync(`/proc/${String(pid)}/fd`)) {
    try {
      const flags = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/${String(pid)}/fdinfo/${fd}`, 'utf8'))?.[1];
      const target = readlinkSync(`/proc/${String(pid)}/fd/${fd}`);
      if (isKept(parseInt(flags ?? '0', 8), target)) continue;
      add(target.replace(/:\[\d+\]| \(deleted\)|^\/(?!dev\/).*/g, ''));
    } catch {
      // Closed meanwhile.
    }
  }
  for (const line of readFileSync(`/proc/${String(pid)}/maps`, 'utf8').split('\n')) {
    const shared = /memfd:(poly-request-memory|poly-queues)/.exec(line)?.[1];
    if (shared !== undefined) add(`mapped ${shared}`);
  }
  return counts;
}

/** What `poly stat --json` says of open files, locks and clients, of all services together. */
export async function inUse(
  site: Site,
): Promise<{ files: number; locks: number; waits: number; clients: number }> {
  const { services } = await polyStat(site);
  const sum = (of: (instance: StatsResult['services'][number]['instances'][number]) => number) =>
    services.flatMap((service) => service.instances).reduce((total, instance) => total + of(instance), 0);
  return {
    files: sum((instance) => instance.openFiles),
    locks: sum((instance) => instance.locks),
    waits: sum((instance) => instance.parkedLockWaits),
    clients: services.reduce((total, service) => total + service.clients.length, 0),
  };
}

async function polyStat(site: Site): Promise<StatsResult> {
  const { code, stdout, stderr } = await run(process.execPath, [poly, 'stat', '--json'], site.env);
  if (code !== 0) throw new Error(`poly stat: ${stderr}`);
  return JSON.parse(stdout) as StatsResult;
}

/** A mount and the service that serves it. */
export interface Mount {
  path: string;
  service: number;
}

export interface Mounts {
  site: Site;
  client: Client;
  mounts: Mount[];
}

export type Census = Record<string, number>[];

/** Of the keeper, and of each mount's service. */
export async function census({ client, mounts }: Mounts): Promise<Census> {
  const pids = [(await status(client)).keeper.pid];
  for (const { service } of mounts) pids.push(await runningService(client, service));
  return pids.map(holdings);
}

/** Waits until nobody is attached, nothing is open or locked, and descriptors and shared memory are what they were. */
export async function assertNothingLeft(t: ExecutionContext, all: Mounts, before: Census): Promise<void> {
  const nothing = { files: 0, locks: 0, waits: 0, clients: 0 };
  let used = await inUse(all.site);
  let now = await census(all);
  for (let tries = 0; tries < 50; tries++) {
    if (isDeepStrictEqual([used, now], [nothing, before])) break;
    await sleep(100);
    used = await inUse(all.site);
    now = await census(all);
  }
  t.deepEqual(used, nothing);
  t.deepEqual(now, before, 'descriptors of keeper and services');
}

export interface Victims {
  service?: boolean;
  polyd?: boolean;
}

/**
 * Kills the service, polyd, or both in one go, and brings polyd back as systemd would. Answers the connection to use from
 * now on.
 */
export async function kill(site: Site, client: Client, victims: Victims): Promise<Client> {
  const pid = victims.service ? await runningService(client) : 0;
  if (victims.polyd) site.child?.kill('SIGKILL');
  if (pid > 0) killed(pid);
  if (pid > 0) await until('the service is dead', 5000, () => !isRunning(pid));
  if (!victims.polyd) return client;
  await site.end('SIGKILL');
  return site.start();
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}

export function randomBetween(least: number, most: number): number {
  return least + Math.floor(Math.random() * (most - least));
}
