/** The copy engine: every method as a share of one local memcpy, and `auto` against the best of them. */
import { z } from 'zod';
import { program } from './paths.ts';
import { lineChart } from './plot.ts';
import { round, type Row } from './rows.ts';
import { median, pairedRatio } from './statistics.ts';
import { output } from './systems/process.ts';

/** Goals of the project: `auto` behind the best method by a tenth at most, a calibration within 200 ms. */
const AUTO_GOAL = 1.1;
const CALIBRATION_GOAL_MS = 200;

const methods = ['smc', 'smc-pipelined', 'smo', 'cma'] as const;
const rounds = z.array(z.number().positive()).min(1);
const outputSchema = z.object({
  smo: z.string(),
  cma: z.boolean(),
  calibrationMs: z.number(),
  sizes: z.array(
    z.object({
      size: z.number(),
      auto: z.enum(methods),
      us: z.object({
        smc: rounds,
        'smc-pipelined': rounds,
        smo: rounds,
        cma: rounds.optional(),
        auto: rounds,
        limit: rounds,
      }),
    }),
  ),
});

type Sizes = z.infer<typeof outputSchema>['sizes'][number];

export interface CopySettings {
  rounds: number;
  /** A smaller source area: less memory, and less surely out of every cache. */
  quick: boolean;
}

export async function runCopy(settings: CopySettings): Promise<Row[]> {
  const args = ['--rounds', String(settings.rounds), '--area', settings.quick ? '256' : '1024'];
  const result = outputSchema.parse(JSON.parse(await output(program('poly-bench-copy'), args)));
  const rows = result.sizes.flatMap((entry) => [...methodRows(entry, result.smo), autoRow(entry)]);
  const ms = result.calibrationMs;
  rows.push({
    experiment: 'copy',
    case: 'calibration',
    unit: 'ms',
    ours: round(ms),
    peer: CALIBRATION_GOAL_MS,
    peerName: 'goal',
    ratio: round(ms / CALIBRATION_GOAL_MS),
    goal: 1,
  });
  return rows;
}

function methodRows({ size, us }: Sizes, smo: string): Row[] {
  return methods.flatMap((method) => {
    const ours = us[method];
    const name = method === 'smo' ? `smo (${smo})` : method;
    return ours ? [row(`${kib(size)} ${name}`, ours, us.limit, 'one memcpy', null)] : [];
  });
}

function autoRow({ size, auto, us }: Sizes): Row {
  const known = methods.filter((method) => us[method] !== undefined);
  const best = known.reduce((a, b) => (median(us[b] ?? []) < median(us[a] ?? []) ? b : a));
  return row(`${kib(size)} auto (${auto})`, us.auto, us[best] ?? [], best, AUTO_GOAL);
}

function row(name: string, ours: number[], peer: number[], peerName: string, goal: number | null): Row {
  return {
    experiment: 'copy',
    case: name,
    unit: 'us',
    ours: round(median(ours)),
    peer: round(median(peer)),
    peerName,
    ratio: round(pairedRatio(ours, peer)),
    goal,
  };
}

function kib(bytes: number): string {
  return `${String(bytes / 1024)} KiB`;
}

const PAPER = [
  'The paper (Linux 4.9, two sockets): SMO is 66 % faster than SMC and 29 % faster than CMA. Not so here: memcpy(3) of today uses',
  'wide registers and stays in a last-level cache that both sides share, where SMO goes to memory and back; overlapping both copies gains more.',
];

/** Microseconds by size, one line per method; the limit is one local memcpy(3). */
export function plotCopy(rows: readonly Row[]): Record<string, string> {
  const entries = rows.flatMap((row) => {
    const match = /^(\d+) KiB ([a-z-]+)/.exec(row.case);
    return match?.[1] && match[2] ? [{ size: Number(match[1]), method: match[2], row }] : [];
  });
  const sizes = [...new Set(entries.map(({ size }) => size))];
  const of = (method: string, pick: (row: Row) => number) => ({
    name: method,
    values: sizes.map((size) => {
      const entry = entries.find((one) => one.size === size && one.method === method);
      return entry && pick(entry.row);
    }),
  });
  const measured = [...methods, 'auto'].filter((method) => entries.some((entry) => entry.method === method));
  const limit = { ...of('smc', (row) => row.peer), name: 'one memcpy' };
  const chart = {
    title: 'From one process into another, source in no cache',
    xLabel: 'KiB',
    yLabel: 'us, median',
    x: sizes,
    series: [limit, ...measured.map((method) => of(method, (row) => row.ours))],
    notes: PAPER,
  };
  return { 'copy.svg': lineChart(chart) };
}
