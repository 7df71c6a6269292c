/** What programs under `poly run` did by the fast path, from the file that POLY_COUNTERS names. */
import { chmodSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { root } from '../server/cli_harness.ts';

export interface Counts {
  /** Calls that the service has served. */
  served: number;
  /** Calls left to the kernel, and open files given to it, by reason; those that occurred. */
  declines: Record<string, number>;
}

/** The reasons, in the order of their counters: POLY_DECLINES is where they are named. */
const reasons = [
  ...readFileSync(join(root, 'preload/counters.hpp'), 'utf8').matchAll(/^ {2}X\((\w+), "/gm),
].map(([, name]) => name ?? '');

const HEADER = 8;

/** Makes a file that the library counts in, whoever runs it; its path. */
export function countersFile(directory: string): string {
  const file = join(mkdtempSync(join(directory, 'counters-')), 'counters');
  writeFileSync(file, Buffer.alloc(HEADER + 8 * (1 + reasons.length)));
  chmodSync(file, 0o666);
  chmodSync(dirname(file), 0o755);
  return file;
}

export function readCounters(file: string): Counts {
  const bytes = readFileSync(file);
  const value = (index: number) => Number(bytes.readBigUInt64LE(HEADER + 8 * index));
  const declines = reasons.map((name, index): [string, number] => [name, value(1 + index)]);
  return { served: value(0), declines: Object.fromEntries(declines.filter(([, count]) => count > 0)) };
}
