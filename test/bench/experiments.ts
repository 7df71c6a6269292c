/** What is measured on every system: each experiment works in a directory of its own and gives one or more figures. */
import { fastExperiments } from './fast_experiments.ts';
import { program } from './paths.ts';
import type { Statistic } from './rows.ts';
import { output } from './systems/process.ts';
import type { FastPath } from './systems/system.ts';
import { runTree } from './tree.ts';

/** Where an experiment runs. `backing` is the same directory without the system in between, where there is one. */
export interface Place {
  dir: string;
  backing: string | undefined;
  /** How it is reached, where that is not through the kernel. */
  fast: FastPath | undefined;
}

export interface RunSettings {
  clients: number;
  quick: boolean;
  /** The generated source tree as a tar file. */
  tar: string;
}

export interface Experiment {
  readonly name: string;
  /** Experiments of a heavier kind run fewer rounds; `fast` ones run on the systems of that family. */
  readonly kind: 'operation' | 'tree' | 'fast';
  /** With so many clients in turn, where it is not the kind's. */
  readonly clients?: readonly number[];
  /** One run: milliseconds or microseconds by statistic, or by figure name where there is none. */
  run(place: Place, settings: RunSettings): Promise<Record<string, number>>;
  readonly figures: readonly FigureName[];
}

export interface FigureName {
  name: string;
  unit: string;
  statistic?: Statistic;
}

/** What poly-bench-workload prints. */
export interface Sample {
  medianNs: number;
  p99Ns: number;
  meanNs: number;
  opsPerSecond: number;
}

async function workload(name: string, place: Place, settings: RunSettings, ops: number): Promise<Sample> {
  const scaled = settings.quick ? Math.ceil(ops / 4) : ops;
  const backing = place.backing === undefined ? [] : ['--backing', place.backing];
  const args = [name, place.dir, '--clients', String(settings.clients), '--ops', String(scaled), ...backing];
  const text = await output(program('poly-bench-workload'), args, { limitMs: 120_000 });
  return JSON.parse(text) as Sample;
}

/** The middle of many equal operations, in microseconds. */
function latency(name: string, ops: number): Experiment {
  return {
    name,
    kind: 'operation',
    figures: [{ name, unit: 'us' }],
    run: async (place, settings) => ({
      [name]: (await workload(name, place, settings, ops)).medianNs / 1000,
    }),
  };
}

/** Sequential transfers: readahead makes some calls cheap and some dear, so the slowest client's throughput counts. */
function throughput(name: string, ops: number): Experiment {
  return {
    name,
    kind: 'operation',
    figures: [{ name, unit: 'us/MiB' }],
    run: async (place, settings) => ({
      [name]: 1e6 / (await workload(name, place, settings, ops)).opsPerSecond,
    }),
  };
}

export const experiments: readonly Experiment[] = [
  latency('read4k-direct', 16_000),
  latency('write4k', 16_000),
  latency('stat-uncached', 6_000),
  latency('open-close', 10_000),
  latency('create-unlink', 5_000),
  throughput('read1m', 256),
  throughput('write1m', 256),
  {
    name: 'tree',
    kind: 'tree',
    figures: [
      { name: 'untar', unit: 'ms' },
      { name: 'diff-r', unit: 'ms' },
      { name: 'git-add', unit: 'ms' },
    ],
    run: runTree,
  },
  ...fastExperiments,
];
