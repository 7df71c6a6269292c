/** The result: one row per figure and peer, with the goal it has to meet. */
import { pairedRatio, median } from './statistics.ts';
import type { Family, System } from './systems/system.ts';

export interface Row {
  experiment: string;
  case: string;
  unit: string;
  ours: number;
  peer: number;
  peerName: string;
  /** ours / peer; less is better. Of systems: the median of the ratios of the rounds. */
  ratio: number;
  /** The ratio to reach, where there is one. */
  goal: number | null;
}

/** What of many operations: the middle, the slow ones, or the whole time of a client divided by its operations. */
export type Statistic = 'median' | 'p99' | 'each';

/** Every round's value of one figure, by system name. */
export interface Figure {
  experiment: string;
  family: Family;
  clients: number;
  unit: string;
  statistic?: Statistic;
  values: Map<string, number[]>;
}

/** Behind no peer by more than this. */
const PARITY = 1.05;

/** Medians with one and two clients, of a library call that the peer answers through FUSE. */
const fastGoals: Record<string, Record<string, number>> = {
  'libfuse3-mt': {
    'fast-stat': 1 / 4,
    'fast-read4k': 1 / 3,
    'fast-write4k': 1 / 3,
    'fast-open-close': 1 / 5,
    'fast-read64k': 1 / 1.3,
    'fast-write64k': 1 / 1.3,
    'fast-read1m': 1 / 1.3,
    'fast-write1m': 1 / 1.3,
  },
  'poly memory': {
    'fast-stat': 1 / 3,
    'fast-read4k': 1 / 2,
    'fast-write4k': 1 / 2,
    'fast-open-close': 1 / 4,
  },
};
/** Medians of more clients than CPUs, against our own FUSE path; their p99 is to be no worse. */
const CROWDED_GOAL = 1 / 1.3;

function fastGoal({ experiment, clients, statistic }: Figure, peer: string): number | null {
  const own = peer === 'poly memory';
  if (experiment === 'fast-hogs') return own ? 1 : null;
  if (clients > 2) return own ? (statistic === 'p99' ? 1 : CROWDED_GOAL) : null;
  return statistic === 'median' ? (fastGoals[peer]?.[experiment] ?? null) : null;
}

function goalFor(figure: Figure, peer: string): number | null {
  if (figure.family === 'fast') return fastGoal(figure, peer);
  if (figure.experiment !== 'read4k-direct') return PARITY;
  if (peer === 'libfuse3-mt') return 0.5;
  return peer === 'fuse-native' ? 0.4 : PARITY;
}

export function met(row: Row): boolean {
  return row.goal === null || row.ratio <= row.goal;
}

export function caseName(figure: Figure): string {
  const clients = `${String(figure.clients)} client${figure.clients === 1 ? '' : 's'}`;
  return figure.statistic === undefined ? `${figure.family}, ${clients}` : `${clients}, ${figure.statistic}`;
}

export function rowsOf(figure: Figure, systems: readonly System[]): Row[] {
  if (figure.statistic === 'each') return []; // beside the others, in the table of figures
  const family = systems.filter((system) => system.family === figure.family);
  const ours = figure.values.get(family.find((system) => system.ours)?.name ?? '');
  if (ours === undefined || ours.length === 0) return [];
  return family.flatMap((system) => {
    const peer = figure.values.get(system.name);
    if (system.ours || peer === undefined || peer.length === 0) return [];
    return {
      experiment: figure.experiment,
      case: caseName(figure),
      unit: figure.unit,
      ours: round(median(ours)),
      peer: round(median(peer)),
      peerName: system.name,
      ratio: round(pairedRatio(ours, peer)),
      goal: goalFor(figure, system.name),
    };
  });
}

export function round(value: number): number {
  return Number(value.toPrecision(4));
}
