/**
 * Request queues in the paper's closed system: N enqueuers, each waiting for the completion of its item before the next,
 * and N dequeuers. Ours, the published RCQB, a mutex and condition variable around a ring, and public queues, all with
 * the same wait policy on both sides.
 */
import { program } from './paths.ts';
import { type Chart, lineChart } from './plot.ts';
import { columns } from './report.ts';
import { round, type Row } from './rows.ts';
import type { StandaloneResult, StandaloneSettings } from './standalone.ts';
import { median, pairedRatio } from './statistics.ts';
import { output } from './systems/process.ts';

const OURS = 'rcqb';
const PACKAGES: Record<string, string> = {
  moodycamel: 'libconcurrentqueue-dev',
  'boost-lockfree': 'libboost-dev',
  'tbb-bounded': 'libtbb-dev',
};
const PEERS = [OURS, 'rcqb-paper', 'mutex-condvar', ...Object.keys(PACKAGES)];
const THREADS = [1, 2, 4, 8, 16, 32, 64];
/** Of idle dequeuers and of enqueuers that wait for their completion. Nobody yields. */
const POLICIES = [
  { name: 'spin 20 us, then futex', spinNs: 20_000 },
  { name: 'futex at once', spinNs: 0 },
];
const RUN_MS = 200;

/** What poly-bench-queue prints. */
interface Sample {
  enqueueMedianNs: number;
  enqueueP99Ns: number;
  tasksPerSecond: number;
}

const FIGURES = [
  { name: 'enqueue median', unit: 'ns', of: (sample: Sample) => sample.enqueueMedianNs },
  { name: 'enqueue p99', unit: 'ns', of: (sample: Sample) => sample.enqueueP99Ns },
  // Less is better, as everywhere in the rows.
  { name: 'task', unit: 'us/task', of: (sample: Sample) => 1e6 / Math.max(1, sample.tasksPerSecond) },
] as const;

const PAPER = [
  'The paper (64 cores, averages, against RCQB): enqueue latency LCRQ up to 77x, WFQ 246x, BQ 5881x longer;',
  'task throughput LCRQ up to 4x, WFQ 34x, BQ 52x lower. Its peers wait in ways of their own; here all wait alike.',
];

/** Samples, one a round, by policy, threads and queue. */
type Samples = Map<string, Sample[]>;

function keyOf(policy: string, threads: number, peer: string): string {
  return `${policy} ${String(threads)} ${peer}`;
}

export async function runQueue(settings: StandaloneSettings): Promise<StandaloneResult> {
  const built = (await output(program('poly-bench-queue'), ['--list'])).trim().split('\n');
  const peers = PEERS.filter((peer) => built.includes(peer));
  const missing = Object.fromEntries(
    PEERS.filter((peer) => !built.includes(peer)).map((peer) => [
      peer,
      `${PACKAGES[peer] ?? peer} was not installed when the benchmark was built`,
    ]),
  );
  const samples: Samples = new Map();
  for (let index = 0; index < settings.rounds; index++) await oneRound(index, peers, settings, samples);
  const tables = POLICIES.flatMap(({ name }) =>
    FIGURES.map((figure) => `${name}\n${table(name, figure, peers, samples)}`),
  );
  return { rows: rowsOf(peers, samples), text: tables.join('\n\n'), missing, plots: plotsOf(peers, samples) };
}

/** All queues take turns at each point, in an order that turns from round to round. */
async function oneRound(
  index: number,
  peers: readonly string[],
  settings: StandaloneSettings,
  samples: Samples,
): Promise<void> {
  const turn = index % peers.length;
  const order = [...peers.slice(turn), ...peers.slice(0, turn)];
  const time = String(settings.quick ? RUN_MS / 4 : RUN_MS);
  for (const policy of POLICIES) {
    for (const threads of THREADS) {
      for (const peer of order) {
        if (settings.interrupted()) throw new Error('interrupted');
        const args = [peer, String(threads), String(policy.spinNs), time];
        const sample = JSON.parse(await output(program('poly-bench-queue'), args)) as Sample;
        const key = keyOf(policy.name, threads, peer);
        samples.set(key, [...(samples.get(key) ?? []), sample]);
      }
    }
  }
}

type FigureOf = (typeof FIGURES)[number];

function valuesOf(policy: string, threads: number, peer: string, figure: FigureOf, samples: Samples) {
  return (samples.get(keyOf(policy, threads, peer)) ?? []).map(figure.of);
}

function table(policy: string, figure: FigureOf, peers: readonly string[], samples: Samples): string {
  const lines = THREADS.map((threads) => [
    `${String(threads)}+${String(threads)}`,
    ...peers.map((peer) => String(round(median(valuesOf(policy, threads, peer, figure, samples))))),
  ]);
  return columns(
    [[`${figure.name.toUpperCase()}, ${figure.unit}`, ...peers.map((p) => p.toUpperCase())], ...lines],
    1,
  );
}

function rowsOf(peers: readonly string[], samples: Samples): Row[] {
  return POLICIES.flatMap((policy) =>
    THREADS.flatMap((threads) =>
      FIGURES.flatMap((figure) => {
        const values = (peer: string) => valuesOf(policy.name, threads, peer, figure, samples);
        const ours = values(OURS);
        return peers.slice(1).map((peer) => ({
          experiment: `queue ${figure.name}`,
          case: `${String(threads)}+${String(threads)} threads, ${policy.name}`,
          unit: figure.unit,
          ours: round(median(ours)),
          peer: round(median(values(peer))),
          peerName: peer,
          ratio: round(pairedRatio(ours, values(peer))),
          goal: null,
        }));
      }),
    ),
  );
}

function plotsOf(peers: readonly string[], samples: Samples): Record<string, string> {
  const plots: Record<string, string> = {};
  for (const [index, policy] of POLICIES.entries()) {
    const chart = (title: string, yLabel: string, of: (sample: Sample) => number): Chart => ({
      title: `${title} (all wait: ${policy.name})`,
      xLabel: 'threads a side',
      yLabel,
      x: THREADS,
      series: peers.map((peer) => ({
        name: peer,
        values: THREADS.map((threads) =>
          median((samples.get(keyOf(policy.name, threads, peer)) ?? []).map(of)),
        ),
      })),
      notes: PAPER,
    });
    const wait = index === 0 ? 'spin' : 'futex';
    plots[`queue-enqueue-median-${wait}.svg`] = lineChart(
      chart('Enqueue latency, median', 'ns', (sample) => sample.enqueueMedianNs),
    );
    plots[`queue-enqueue-p99-${wait}.svg`] = lineChart(
      chart('Enqueue latency, p99', 'ns', (sample) => sample.enqueueP99Ns),
    );
    plots[`queue-throughput-${wait}.svg`] = lineChart(
      chart('Task throughput', 'tasks/s', (sample) => sample.tasksPerSecond),
    );
  }
  return plots;
}
