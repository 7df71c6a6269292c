/**
 * For tests of the command line: runs `poly` as users do, in a run directory of its own, against a stand-in polyd where
 * the answers matter and a real one would need root.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import type { Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Method, PolydMethods } from '../../server/protocol.ts';
import { listenRpc, UnknownMethod } from '../../server/rpc.ts';
import { PolyError } from '../../server/errors.ts';

/** The checkout; this file runs as dist/test/server/cli_harness.js. */
export const root = fileURLToPath(new URL('../../../', import.meta.url));
export const poly = join(root, 'server/bin/poly.js');

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export type Environment = Record<string, string | undefined>;

/** Runs a program to its end; killed after `timeoutMs`. */
export function run(
  program: string,
  args: string[],
  env: Environment = {},
  { timeoutMs = 30_000, onStart }: { timeoutMs?: number; onStart?: (pid: number) => void } = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
    });
    const ended: Ended = { code: null, stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (text: string) => (ended.stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (ended.stderr += text));
    child.once('error', reject);
    if (child.pid !== undefined) onStart?.(child.pid);
    // "exit" and not "close": a daemon started by the command may hold our pipes. What is in them by then is read before
    // the immediate, however late the timer is.
    child.once('exit', (code) => {
      setTimeout(() => {
        setImmediate(() => {
          resolve({ ...ended, code });
        });
      }, 20);
    });
  });
}

export function runPoly(args: string[], env: Environment = {}): Promise<Ended> {
  return run(process.execPath, [poly, ...args], env);
}

export function temporaryDirectory(): string {
  return mkdtempSync(join(tmpdir(), 'poly-test-'));
}

type Answers = {
  [M in Method]?: (
    params: PolydMethods[M]['params'],
  ) => PolydMethods[M]['result'] | Promise<PolydMethods[M]['result']>;
};

export interface StandIn {
  env: Environment;
  runDir: string;
  /** Methods asked for, in order, with their parameters. */
  calls: { method: string; params: unknown }[];
  close: () => void;
}

/** Listens where polyd would and gives the answers it is told; others fail with an unknown method. */
export async function standInPolyd(answers: Answers): Promise<StandIn> {
  const runDir = temporaryDirectory();
  const calls: StandIn['calls'] = [];
  const sockets = new Set<{ destroy: () => void }>();
  const server: Server = await listenRpc(join(runDir, 'control.sock'), {
    maxConnections: 8,
    accept: (socket) => {
      sockets.add(socket);
      return {
        onRequest: (method, params) => {
          calls.push({ method, params });
          const answer = (answers as Record<string, ((params: unknown) => unknown) | undefined>)[method];
          if (!answer) throw new UnknownMethod(method);
          return answer(params);
        },
      };
    },
  });
  const close = (): void => {
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(runDir, { recursive: true, force: true });
  };
  return { env: { POLY_RUN_DIR: runDir }, runDir, calls, close };
}

export function failure(code: string, message: string): never {
  throw new PolyError(code, message);
}

/** One line, without a trace of where in the program it came from. */
export function isOneLine(text: string): boolean {
  return /^[^\n]+\n$/.test(text) && !/\n\s+at /.test(text);
}
