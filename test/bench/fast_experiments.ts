/**
 * The fast path against FUSE: the same operations by the same program, uncached, with one client process to eight. That
 * the calls of `poly fast` really went by the fast path is counted in the service, from before the measurement to after it.
 */
import { lineChart } from './plot.ts';
import type { Figure } from './rows.ts';
import { median } from './statistics.ts';
import type { Experiment, Place, RunSettings, Sample } from './experiments.ts';
import { runGated } from './gated.ts';
import type { CallCount } from './systems/system.ts';

interface FastCase {
  name: string;
  /** Per client; more than two clients share twice as many. */
  ops: number;
  /** The service's calls in one operation. */
  calls: number;
  clients?: readonly number[];
  /** The workload's, where it is not `name`. */
  args?: readonly string[];
}

const LIMIT_MS = 60_000;
/** Share of the calls that the service may leave to the kernel. */
const MOST_DECLINED = 0.01;

const cases: readonly FastCase[] = [
  { name: 'fast-stat', ops: 2_000, calls: 1 },
  { name: 'fast-read4k', ops: 8_000, calls: 1 },
  { name: 'fast-write4k', ops: 8_000, calls: 1 },
  { name: 'fast-open-close', ops: 4_000, calls: 2 },
  { name: 'fast-read64k', ops: 2_000, calls: 1 },
  { name: 'fast-write64k', ops: 2_000, calls: 1 },
  { name: 'fast-read1m', ops: 400, calls: 1 },
  { name: 'fast-write1m', ops: 400, calls: 1 },
  { name: 'fast-hogs', ops: 4_000, calls: 1, clients: [1], args: ['fast-read4k', '--hogs', '2'] },
];

async function run(one: FastCase, place: Place, settings: RunSettings): Promise<Record<string, number>> {
  const share = Math.min(1, 2 / settings.clients);
  const ops = Math.ceil((one.ops * share) / (settings.quick ? 4 : 1));
  const sizes = ['--clients', String(settings.clients), '--ops', String(ops)];
  const args = [...(one.args ?? [one.name]), place.dir, ...sizes];
  // The fast path leaves O_DIRECT to the kernel, and caches nothing without.
  if (!place.fast) args.push('--direct');
  const counts: CallCount[] = [];
  const env = { ...process.env, ...place.fast?.environment };
  const text = await runGated(args, { limitMs: LIMIT_MS, env }, async (pids) => {
    if (place.fast) counts.push(await place.fast.count(pids));
  });
  if (place.fast) check(counts, one.calls * ops * settings.clients);
  const sample = JSON.parse(text) as Sample;
  return {
    median: sample.medianNs / 1000,
    p99: sample.p99Ns / 1000,
    each: 1e6 / sample.opsPerSecond,
  };
}

/** Throws unless the service has answered what was asked in the measurement. */
function check([before, after]: readonly CallCount[], wanted: number): void {
  const calls = (after?.calls ?? 0) - (before?.calls ?? 0);
  const declined = (after?.declined ?? 0) - (before?.declined ?? 0);
  if (calls < wanted || declined > wanted * MOST_DECLINED) {
    const kept = declined > 0 ? `, ${String(declined)} of them left to the kernel` : '';
    throw new Error(`${String(calls)} calls by the fast path${kept}, but ${String(wanted)} were measured`);
  }
}

export const fastExperiments: readonly Experiment[] = cases.map((one) => ({
  name: one.name,
  kind: 'fast',
  ...(one.clients !== undefined && { clients: one.clients }),
  figures: [
    { name: one.name, unit: 'us', statistic: 'median' },
    { name: one.name, unit: 'us', statistic: 'p99' },
    { name: one.name, unit: 'us', statistic: 'each' },
  ],
  run: (place, settings) => run(one, place, settings),
}));

const PAPER = [
  'The paper (Ceph, 64 cores): FUSE takes 32-46 % longer than the fast path to read. The gap is wider here, as the backend is memory:',
  'nearly all of the time is communication. Where clients outnumber the CPUs, the median is of who has a CPU, the p99 of who waits for one.',
];

/** Median and p99 by number of clients, one line per system and statistic. */
export function plotFast(figures: readonly Figure[]): Record<string, string> {
  const plots: Record<string, string> = {};
  for (const { name } of cases) {
    const of = figures.filter(({ experiment, statistic }) => experiment === name && statistic !== 'each');
    const x = [...new Set(of.map(({ clients }) => clients))].sort((a, b) => a - b);
    const systems = [...new Set(of.flatMap(({ values }) => [...values.keys()]))];
    if (systems.length === 0) continue;
    const series = (['median', 'p99'] as const).flatMap((statistic) =>
      systems.map((system) => ({
        name: `${system}, ${statistic}`,
        values: x.map((clients) => {
          const figure = of.find((one) => one.clients === clients && one.statistic === statistic);
          const values = figure?.values.get(system);
          return values && median(values);
        }),
      })),
    );
    const title = `${name}: one operation`;
    plots[`${name}.svg`] = lineChart({ title, xLabel: 'clients', yLabel: 'us', x, series, notes: PAPER });
  }
  return plots;
}
