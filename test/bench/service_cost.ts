/** What a service costs before it does anything: time to a usable mount, idle memory, two hundred mounts in one. */
import { mkdirSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runPreloadCost } from './preload_cost.ts';
import { round, type Row } from './rows.ts';
import { median, pairedRatio } from './statistics.ts';
import { output, unmount } from './systems/process.ts';
import type { PolyDaemon, ServiceFigures } from './systems/poly.ts';

const MIB = 2 ** 20;
const MOUNTS = 200;
const IDLE_MS = 1_000;
/** Goals of the project: start within three `node -e 0`, an idle service within 64 MiB, no thread per mount. */
const START_GOAL = 3;
const RSS_GOAL_MIB = 64;

export const serviceExperiments = ['startup', 'rss', 'mounts200', 'preload-cost'] as const;
export type ServiceExperiment = (typeof serviceExperiments)[number];

export interface ServiceSettings {
  daemon: PolyDaemon;
  /** An empty directory for mount points. */
  scratch: string;
  /** An empty directory elsewhere. */
  far: string;
  rounds: number;
  quick: boolean;
}

export async function runService(name: ServiceExperiment, settings: ServiceSettings): Promise<Row[]> {
  if (name === 'startup') return startup(settings);
  if (name === 'preload-cost') return runPreloadCost(settings);
  return name === 'rss' ? idleMemory(settings) : manyMounts(settings);
}

async function elapsed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/**
 * With a running daemon, a new service each time: from the service's start (as the daemon notes it) until the mount has
 * answered, and the whole `poly mount` command, which is a Node of its own.
 */
async function startup({ daemon, scratch, rounds }: ServiceSettings): Promise<Row[]> {
  const dir = mountPoint(scratch, 'startup');
  const service: number[] = [];
  const command: number[] = [];
  const node: number[] = [];
  for (let i = 0; i < Math.max(5, rounds); i++) {
    node.push(await elapsed(() => output(process.execPath, ['-e', '0'])));
    command.push(
      await elapsed(async () => {
        await daemon.command('mount', 'memory', dir, '--pool', `bench-start-${String(i)}`);
        await stat(dir);
      }),
    );
    const usable = Date.now();
    const { startedAt } = await serviceOf(daemon, `bench-start-${String(i)}`);
    service.push(usable - Date.parse(startedAt));
    await daemon.command('umount', dir);
  }
  const row = (name: string, ours: number[], goal: number | null): Row => ({
    experiment: 'startup',
    case: name,
    unit: 'ms',
    ours: round(median(ours)),
    peer: round(median(node)),
    peerName: 'node -e 0',
    ratio: round(pairedRatio(ours, node)),
    goal,
  });
  return [
    row('service to usable mount', service, START_GOAL),
    row('poly mount, whole command', command, null),
  ];
}

async function idleMemory({ daemon, scratch }: ServiceSettings): Promise<Row[]> {
  const dir = mountPoint(scratch, 'rss');
  await daemon.command('mount', 'memory', dir, '--pool', 'bench-rss');
  try {
    await sleep(IDLE_MS);
    const { rss } = await serviceOf(daemon, 'bench-rss');
    return [limitRow('rss', 'idle service', 'MiB', rss / MIB, RSS_GOAL_MIB, 'goal', 1)];
  } finally {
    await daemon.command('umount', dir);
  }
}

async function manyMounts({ daemon, scratch }: ServiceSettings): Promise<Row[]> {
  const dirs: string[] = [];
  const mount = async (index: number): Promise<void> => {
    const dir = mountPoint(scratch, `many-${String(index)}`);
    await daemon.command('mount', 'memory', dir, '--pool', 'bench-many');
    dirs.push(dir);
    await stat(dir);
  };
  try {
    await mount(0);
    await sleep(IDLE_MS);
    const one = await serviceOf(daemon, 'bench-many');
    for (let i = 1; i < MOUNTS; i++) await mount(i);
    await sleep(IDLE_MS);
    const many = await serviceOf(daemon, 'bench-many');
    if (many.mounts !== MOUNTS)
      throw new Error(`${String(many.mounts)} of ${String(MOUNTS)} mounts in the service`);
    const name = `${String(MOUNTS)} mounts, one service`;
    return [
      limitRow('mounts200', name, 'threads', many.threads, one.threads, 'one mount', 1),
      limitRow('mounts200', name, 'MiB', many.rss / MIB, RSS_GOAL_MIB, 'goal when idle', 1),
    ];
  } finally {
    // Anybody's umount ends an instance; two hundred commands would take longer than the rest.
    for (const dir of dirs) await unmount(dir);
  }
}

function mountPoint(scratch: string, name: string): string {
  const dir = join(scratch, name);
  mkdirSync(dir, { recursive: true });
  return dir;
}

async function serviceOf(daemon: PolyDaemon, pool: string): Promise<ServiceFigures> {
  const found = (await daemon.services()).find((service) => service.pool === pool);
  if (!found) throw new Error(`no service of pool ${pool}`);
  return found;
}

function limitRow(
  experiment: string,
  name: string,
  unit: string,
  ours: number,
  limit: number,
  limitName: string,
  goal: number,
): Row {
  const figures = { ours: round(ours), peer: round(limit), ratio: round(ours / limit) };
  return { experiment, case: name, unit, ...figures, peerName: limitName, goal };
}
