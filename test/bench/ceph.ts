/**
 * The `ceph` libservice against ceph-fuse and bare libcephfs, on one cluster of the benchmark's own (one OSD in memory):
 * one tenant, two and four at once, each with clients of his own, on every system in turn, round by round.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errorMessage } from '../../server/errors.ts';
import { Cluster, missingPackages } from '../ceph/cluster.ts';
import type { Sample } from './experiments.ts';
import { runGated } from './gated.ts';
import { program } from './paths.ts';
import { rowTable } from './report.ts';
import { round, type Row } from './rows.ts';
import type { StandaloneResult, StandaloneSettings } from './standalone.ts';
import { median, pairedRatio } from './statistics.ts';
import { CephMounts, type CephWay } from './systems/ceph.ts';
import { PolyDaemon } from './systems/poly.ts';
import { output } from './systems/process.ts';
import { makeTar } from './tree.ts';

const TENANTS = ['t1', 't2', 't3', 't4'];
const LIMIT_MS = 60_000;

interface Case {
  name: string;
  kind: 'names' | 'data';
  /** The workload's. */
  work: string;
  ops: number;
  counts: readonly number[];
  /** Which systems are asked: where the kernel's page cache would answer, those with it are compared on their own. */
  of: 'all' | 'pages' | 'client';
  /** Of ours over bare libcephfs: cached answers cost a round trip by the fast path more, others hardly anything. */
  bare: { roundTrip: true } | { ratio: number } | null;
}

/** What a fast-path call costs beside what it does, us (README, Speed). */
const ROUND_TRIP_US = 4;

const cases: readonly Case[] = [
  {
    name: 'stat',
    kind: 'names',
    work: 'fast-stat',
    ops: 2_000,
    counts: [1, 2, 4],
    of: 'all',
    bare: { roundTrip: true },
  },
  {
    name: 'open+close',
    kind: 'names',
    work: 'fast-open-close',
    ops: 2_000,
    counts: [1, 2],
    of: 'all',
    bare: { roundTrip: true },
  },
  {
    name: 'create+unlink',
    kind: 'names',
    work: 'create-unlink',
    ops: 200,
    counts: [1, 2, 4],
    of: 'all',
    bare: { ratio: 1.1 },
  },
  {
    name: '4 KiB read, page cache',
    kind: 'data',
    work: 'fast-read4k',
    ops: 16_000,
    counts: [1, 2],
    of: 'pages',
    bare: null,
  },
  {
    name: '4 KiB read, client cache',
    kind: 'data',
    work: 'fast-read4k',
    ops: 6_000,
    counts: [1, 2, 4],
    of: 'client',
    bare: { roundTrip: true },
  },
  {
    name: '4 KiB read, OSD',
    kind: 'data',
    work: 'read4k-large',
    ops: 1_500,
    counts: [1, 2],
    of: 'client',
    bare: { ratio: 1.1 },
  },
  {
    name: '4 KiB write',
    kind: 'data',
    work: 'fast-write4k',
    ops: 2_000,
    counts: [1, 2, 4],
    of: 'all',
    bare: { roundTrip: true },
  },
  {
    name: '4 KiB write, O_DSYNC',
    kind: 'data',
    work: 'write4k-sync',
    ops: 300,
    counts: [1, 2],
    of: 'all',
    bare: { ratio: 1.1 },
  },
  {
    name: '1 MiB read, sequential',
    kind: 'data',
    work: 'read1m',
    ops: 128,
    counts: [1, 2],
    of: 'all',
    bare: { ratio: 1.1 },
  },
  {
    name: '1 MiB write, sequential',
    kind: 'data',
    work: 'write1m',
    ops: 64,
    counts: [1, 2],
    of: 'all',
    bare: { ratio: 1.1 },
  },
];

/** What a command does in each tenant's place, in milliseconds until the last has done it. */
interface Command {
  name: string;
  counts: readonly number[];
  words(dir: string, quick: boolean): string[];
}

const commands: readonly Command[] = [
  {
    name: 'db_bench, put and get 50/50',
    counts: [1, 2],
    words: (dir, quick) => [
      'db_bench',
      `--db=${dir}/db`,
      '--benchmarks=fillseq,readrandomwriterandom',
      '--readwritepercent=50',
      `--num=${quick ? '500' : '8000'}`,
      '--threads=1',
      '--value_size=1024',
      '--compression_type=none',
      '--cache_size=1048576',
    ],
  },
  { name: 'diff -rq', counts: [1, 2], words: (dir) => ['diff', '-rq', `${dir}/a`, `${dir}/b`] },
];

type Values = Map<string, number[]>;

/** Medians and p99 of one case and number of tenants, by system. */
interface Measured {
  name: string;
  tenants: number;
  unit: string;
  statistic: string;
  bare: Case['bare'];
  values: Values;
}

class Comparison {
  readonly #mounts: CephMounts;
  readonly #settings: StandaloneSettings;
  readonly #measured = new Map<string, Measured>();

  constructor(mounts: CephMounts, settings: StandaloneSettings) {
    this.#mounts = mounts;
    this.#settings = settings;
  }

  get all(): Measured[] {
    return [...this.#measured.values()];
  }

  #add(what: Omit<Measured, 'values'>, way: CephWay, value: number): void {
    const key = `${what.name} ${String(what.tenants)} ${what.statistic}`;
    const entry = this.#measured.get(key) ?? { ...what, values: new Map<string, number[]>() };
    this.#measured.set(key, entry);
    entry.values.set(way.name, [...(entry.values.get(way.name) ?? []), value]);
  }

  /** The systems in an order that turns from round to round. */
  #order(index: number, of: Case['of']): CephWay[] {
    const ways = this.#mounts.ways.filter(({ pages }) => of === 'all' || pages === (of === 'pages'));
    const turn = index % ways.length;
    return [...ways.slice(turn), ...ways.slice(0, turn)];
  }

  async cases(index: number, kind: Case['kind']): Promise<void> {
    for (const one of cases.filter((each) => each.kind === kind)) {
      for (const tenants of this.#settings.quick ? [1] : one.counts) {
        for (const way of this.#order(index, one.of)) {
          if (this.#settings.interrupted()) return;
          const ops = this.#settings.quick ? Math.ceil(one.ops / 4) : one.ops;
          const samples = await Promise.all(
            this.#start(way, one.work, ['--ops', String(ops)], tenants),
          ).catch((error: unknown) => {
            throw new Error(
              `${one.name} on ${way.name}, ${String(tenants)} tenant(s): ${errorMessage(error)}`,
            );
          });
          const what = { name: one.name, tenants, unit: 'us', bare: one.bare };
          this.#add({ ...what, statistic: 'median' }, way, median(samples.map((s) => s.medianNs / 1000)));
          this.#add(
            { ...what, statistic: 'p99', bare: null },
            way,
            Math.max(...samples.map((s) => s.p99Ns / 1000)),
          );
        }
      }
    }
  }

  /** One workload per tenant, which begin together, when all are ready and what is then to be done is done. */
  #start(
    way: CephWay,
    work: string,
    sizes: string[],
    tenants: number,
    then?: () => Promise<void>,
  ): Promise<Sample>[] {
    let begin = (): void => undefined;
    const all = new Promise<void>((resolve) => (begin = resolve));
    let ready = 0;
    return TENANTS.slice(0, tenants).map(async (tenant) => {
      const place = way.place(tenant);
      let stops = 0;
      const at = async (): Promise<void> => {
        if (stops++ > 0) return;
        if (++ready === tenants) {
          await then?.();
          begin();
        }
        await all;
      };
      const env = { ...process.env, ...way.fast?.environment };
      const bare = place === undefined;
      const args = bare ? [work, ...this.#mounts.bareArgs(tenant), ...sizes] : [work, place, ...sizes];
      const options = { limitMs: LIMIT_MS, env, ...(bare && { program: 'poly-bench-cephfs' }) };
      return JSON.parse(await runGated(args, options, at)) as Sample;
    });
  }

  /** Source trees, and their copies, for `diff`. */
  async trees(tar: string): Promise<void> {
    for (const way of this.#mounts.ways.filter(({ fast }) => !fast)) {
      for (const tenant of TENANTS.slice(0, 2)) {
        const dir = way.place(tenant);
        if (dir === undefined) continue;
        for (const name of ['a', 'b']) {
          mkdirSync(join(dir, name), { recursive: true });
          await output('tar', ['-xf', tar, '-C', join(dir, name)], { limitMs: LIMIT_MS });
        }
      }
    }
  }

  async commands(index: number): Promise<void> {
    for (const command of commands) {
      for (const tenants of this.#settings.quick ? [1] : command.counts) {
        for (const way of this.#order(index, 'all')) {
          if (this.#settings.interrupted()) return;
          const homes = TENANTS.slice(0, tenants).map((tenant) => way.place(tenant));
          if (homes.includes(undefined)) continue;
          const env = { ...process.env, ...way.fast?.environment };
          const begin = performance.now();
          await Promise.all(
            homes.map(async (home = '') => {
              const [name = '', ...args] = command.words(home, this.#settings.quick);
              await output(name, args, { limitMs: 120_000, env });
            }),
          );
          const what = { name: command.name, tenants, unit: 'ms', statistic: 'until all are done' };
          this.#add({ ...what, bare: null }, way, performance.now() - begin);
          for (const home of homes) rmSync(join(home ?? '', 'db'), { recursive: true, force: true });
        }
      }
    }
  }

  /** One tenant's reads, all from his client's cache, while two others write as much as they can. */
  async beside(index: number): Promise<void> {
    for (const way of this.#order(index, 'client')) {
      if (this.#settings.interrupted()) return;
      if (way.place('t1') === undefined) continue;
      const env = { ...process.env, ...way.fast?.environment };
      const hogs: ChildProcess[] = [];
      const overload = async (): Promise<void> => {
        for (const tenant of ['t2', 't3']) {
          const args = ['write1m', way.place(tenant) ?? '', '--ops', '100000', '--warmup', '0'];
          hogs.push(spawn(program('poly-bench-workload'), args, { env, stdio: 'ignore' }));
        }
        await sleep(2_000);
      };
      const sizes = ['--ops', this.#settings.quick ? '1000' : '4000', '--warmup', '40000'];
      try {
        const [sample] = await Promise.all(this.#start(way, 'fast-read4k', sizes, 1, overload));
        if (!sample) continue;
        const name = '4 KiB read beside two tenants that write';
        const what = { name, tenants: 1, unit: 'us', bare: null };
        this.#add({ ...what, statistic: 'median' }, way, sample.medianNs / 1000);
        this.#add({ ...what, statistic: 'p99' }, way, sample.p99Ns / 1000);
      } finally {
        for (const hog of hogs) hog.kill('SIGKILL');
        await sleep(1_000);
      }
    }
  }
}

function rowsOf(measured: Measured): Row[] {
  const { name, tenants, unit, statistic, values } = measured;
  const where = `${name}, ${String(tenants)} tenant${tenants === 1 ? '' : 's'}, ${statistic}`;
  const rows: Row[] = [];
  for (const us of ['poly fast', 'poly FUSE']) {
    const ours = values.get(us);
    if (!ours) continue;
    for (const [peerName, peer] of values) {
      if (peerName.startsWith('poly')) continue;
      rows.push({
        experiment: us,
        case: where,
        unit,
        ours: round(median(ours)),
        peer: round(median(peer)),
        peerName,
        ratio: round(pairedRatio(ours, peer)),
        goal: goalFor(measured, us, peerName, median(peer)),
      });
    }
  }
  return rows;
}

/** Ahead of ceph-fuse by the fast path, level with it by FUSE where the kernel answers; near bare libcephfs. */
function goalFor(
  { statistic, bare, name }: Measured,
  us: string,
  peer: string,
  bareUs: number,
): number | null {
  const tail = statistic === 'p99';
  if (us === 'poly FUSE') return name.includes('page cache') && !tail ? 1.05 : null;
  if (peer !== 'libcephfs') return tail && !name.includes('beside') ? null : 1;
  if (bare === null) return null;
  return 'ratio' in bare ? bare.ratio : round((bareUs + ROUND_TRIP_US) / bareUs);
}

/** What is measured of it: on names, on data, by whole programs and beside others. */
export type CephPart = Case['kind'] | 'programs';

export function runCeph(part: CephPart): (settings: StandaloneSettings) => Promise<StandaloneResult> {
  return async (settings) => {
    const missing = missingPackages();
    if (missing !== undefined) return { rows: [], text: '', missing: { ceph: missing }, plots: {} };
    const scratch = mkdtempSync(join(tmpdir(), 'poly-bench-ceph-'));
    const daemon = new PolyDaemon(join(scratch, 'run'));
    const cluster = await Cluster.up({ tenants: TENANTS });
    const mounts = new CephMounts(cluster, daemon, join(scratch, 'mnt'), TENANTS);
    try {
      const reason = await daemon.start();
      if (reason !== undefined) throw new Error(reason);
      await mounts.start();
      const comparison = new Comparison(mounts, settings);
      await measure(comparison, part, settings, scratch);
      const rows = comparison.all.flatMap(rowsOf);
      return { rows, text: rowTable(rows), missing: {}, plots: {} };
    } finally {
      await mounts.stop();
      await daemon.stop();
      await cluster.down();
      rmSync(scratch, { recursive: true, force: true });
    }
  };
}

async function measure(
  comparison: Comparison,
  part: CephPart,
  settings: StandaloneSettings,
  scratch: string,
): Promise<void> {
  if (part === 'programs') await comparison.trees(await makeTar(scratch, settings.quick ? 100 : 600));
  for (let i = 0; i < settings.rounds && !settings.interrupted(); i++) {
    if (part !== 'programs') await comparison.cases(i, part);
    else {
      await comparison.commands(i);
      await comparison.beside(i);
    }
  }
}
