/** What fast-path calls cost in the service alone, beside the same system call on a tmpfs, which is what serves them. */
import { program } from './paths.ts';
import { round, type Row } from './rows.ts';
import type { StandaloneSettings } from './standalone.ts';
import { median, pairedRatio } from './statistics.ts';
import { output } from './systems/process.ts';

export async function runCalls({ rounds, quick }: StandaloneSettings): Promise<Row[]> {
  const times = new Map<string, { ours: number[]; kernel: number[] }>();
  const args = ['--calls', quick ? '5000' : '20000'];
  for (let i = 0; i < rounds; i++) {
    for (const line of (await output(program('poly-bench-calls'), args)).trim().split('\n')) {
      const [name = '', ours, kernel] = line.split(' ');
      const entry = times.get(name) ?? { ours: [], kernel: [] };
      entry.ours.push(Number(ours));
      entry.kernel.push(Number(kernel));
      times.set(name, entry);
    }
  }
  return [...times].map(([name, { ours, kernel }]) => ({
    experiment: 'calls',
    case: name,
    unit: 'ns',
    ours: round(median(ours)),
    peer: round(median(kernel)),
    peerName: 'system call on tmpfs',
    ratio: round(pairedRatio(ours, kernel)),
    goal: null,
  }));
}
