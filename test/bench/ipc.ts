/** The fast path's round trip beside what bounds it: two cache-line transfers, a futex ping-pong. */
import { program } from './paths.ts';
import { lineChart } from './plot.ts';
import { round, type Row } from './rows.ts';
import { median, pairedRatio } from './statistics.ts';
import { output } from './systems/process.ts';

export interface IpcSettings {
  rounds: number;
  quick: boolean;
}

/** case of ours, its bound, and the goal of the project for the ratio of the medians. */
const comparisons = [
  { ours: 'cross', bound: 'lines', boundName: 'two cache-line transfers', goal: 2.2 },
  { ours: 'same', bound: 'futex', boundName: 'futex ping-pong', goal: 1.3 },
  { ours: 'free', bound: 'lines', boundName: 'two cache-line transfers', goal: null },
  { ours: 'hogs', bound: 'futex', boundName: 'futex ping-pong', goal: null },
] as const;

const names: Record<string, string> = {
  cross: 'two cores',
  same: 'one core',
  free: 'client not pinned',
  hogs: 'beside two CPU hogs',
};

export async function runIpc(settings: IpcSettings): Promise<Row[]> {
  const medians = new Map<string, number[]>();
  const tails = new Map<string, number[]>();
  const args = ['--calls', settings.quick ? '20000' : '200000'];
  for (let i = 0; i < settings.rounds; i++) {
    for (const line of (await output(program('poly-bench-ipc'), args)).trim().split('\n')) {
      const [name = '', middle, tail] = line.split(' ');
      add(medians, name, Number(middle));
      add(tails, name, Number(tail));
    }
  }
  return comparisons.flatMap(({ ours, bound, boundName, goal }) => [
    row(`${names[ours] ?? ours}, median`, medians, ours, bound, boundName, goal),
    row(`${names[ours] ?? ours}, p99`, tails, ours, bound, boundName, null),
  ]);
}

function add(to: Map<string, number[]>, name: string, value: number): void {
  to.set(name, [...(to.get(name) ?? []), value]);
}

function row(
  name: string,
  times: Map<string, number[]>,
  ours: string,
  bound: string,
  peerName: string,
  goal: number | null,
): Row {
  const a = times.get(ours) ?? [];
  const b = times.get(bound) ?? [];
  return {
    experiment: 'ipc',
    case: name,
    unit: 'us',
    ours: round(median(a) / 1000),
    peer: round(median(b) / 1000),
    peerName,
    ratio: round(pairedRatio(a, b)),
    goal,
  };
}

const PAPER = [
  'The paper (Linux 4.9) gives no round trip alone: its FUSE takes 32-46 % longer than the fast path to read from Ceph, of which',
  'the IPC is 25-46 % longer. Here the round trip is measured without a backend; beside FUSE, see the plots of fast-*.',
];

/** Median and p99 of the round trip, and of what bounds it, in each arrangement. */
export function plotIpc(rows: readonly Row[]): Record<string, string> {
  const cases = comparisons.map(({ ours }) => names[ours] ?? ours);
  const of = (name: string, suffix: string, pick: (row: Row) => number) => ({
    name,
    values: cases.map((one) => {
      const found = rows.find((entry) => entry.case === `${one}, ${suffix}`);
      return found && pick(found);
    }),
  });
  const chart = {
    title: 'Round trip of 64 bytes',
    xLabel: 'client and server',
    yLabel: 'us',
    x: cases.map((_, index) => 2 ** index),
    xNames: cases,
    series: [
      of('fast path, median', 'median', (row) => row.ours),
      of('fast path, p99', 'p99', (row) => row.ours),
      of('bound, median', 'median', (row) => row.peer),
    ],
    notes: [
      'Bound: two cache-line transfers between cores, a futex ping-pong on one core and beside hogs.',
      ...PAPER,
    ],
  };
  return { 'ipc.svg': lineChart(chart) };
}
