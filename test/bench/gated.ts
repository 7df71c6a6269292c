/** Runs a workload with a stop before and one after the measurement, its clients alive at both. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { program } from './paths.ts';

interface GatedOptions {
  limitMs: number;
  env: NodeJS.ProcessEnv;
  /** By default poly-bench-workload. */
  program?: string;
}

type Workload = ChildProcessByStdio<Writable, Readable, Readable>;

/**
 * `at` is called at both stops with the process numbers of the clients. Resolves to the measurement's JSON. Its clients
 * end with it, and it ends with us.
 */
export async function runGated(
  args: readonly string[],
  options: GatedOptions,
  at: (pids: number[]) => Promise<void>,
): Promise<string> {
  const words = options.program === undefined ? [...args, '--gate'] : args;
  const child = spawn(program(options.program ?? 'poly-bench-workload'), words, {
    env: options.env,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const ended = once(child, 'close');
  const timer = setTimeout(() => child.kill('SIGKILL'), options.limitMs);
  let errors = '';
  child.stderr.on('data', (text: Buffer) => (errors += text.toString()));
  child.stdin.on('error', () => undefined); // it has ended, and its status says why
  try {
    const result = await converse(child, at);
    await ended;
    if (result === undefined || child.exitCode !== 0)
      throw new Error(errors.trim() || `ended by ${child.signalCode ?? `status ${String(child.exitCode)}`}`);
    return result;
  } finally {
    clearTimeout(timer);
    child.kill('SIGKILL');
    await ended;
  }
}

async function converse(child: Workload, at: (pids: number[]) => Promise<void>): Promise<string | undefined> {
  let pids: number[] = [];
  let result: string | undefined;
  for await (const line of createInterface(child.stdout)) {
    if (line.startsWith('ready ')) pids = line.split(' ').slice(1).map(Number);
    else result = line;
    await at(pids);
    child.stdin.write('\n');
  }
  return result;
}
