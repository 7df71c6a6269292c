/**
 * Daemons for tests: each in a run directory of its own, ended with all its processes when the test is over.
 */
import type { ExecutionContext } from 'ava';
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { MountOptions, PolydMethods, PrepareResult, StatusResult } from '../../server/protocol.ts';
import { connectRpc, type RpcPeer } from '../../server/rpc.ts';
import { runDir, type RunDir } from '../../server/rundir.ts';

export type Client = RpcPeer<PolydMethods>;

export const FAKE_ADDON = fileURLToPath(new URL('../../../test/server/fake_addon.cjs', import.meta.url));
const POLYD = fileURLToPath(new URL('../../server/polyd.js', import.meta.url));

/** A temporary directory, removed after the test. */
export function temporary(t: ExecutionContext, name = 'poly-test-'): string {
  const path = mkdtempSync(join(tmpdir(), name));
  t.teardown(() => {
    rmSync(path, { recursive: true, force: true });
  });
  return path;
}

export async function until<T>(
  what: string,
  timeoutMs: number,
  probe: () => T | Promise<T>,
): Promise<NonNullable<T>> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${String(timeoutMs)} ms: ${what}`);
    await sleep(5);
  }
}

export function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) !== 'Z';
  } catch {
    return false;
  }
}

/** Processes whose environment names this run directory: polyd, its services, its keeper. */
function processesOf(path: string): number[] {
  const needle = `POLY_RUN_DIR=${path}\0`;
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return (
          pid !== process.pid && `${readFileSync(`/proc/${String(pid)}/environ`, 'utf8')}\0`.includes(needle)
        );
      } catch {
        return false;
      }
    });
}

/** One run directory and whatever runs in it. */
export class Site {
  readonly dir: RunDir;
  readonly env: NodeJS.ProcessEnv;
  child: ChildProcess | undefined;
  stderr = '';

  constructor(t: ExecutionContext, env: NodeJS.ProcessEnv = {}) {
    const path = temporary(t);
    this.dir = runDir(path);
    this.env = { ...process.env, POLY_RUN_DIR: path, POLY_CONFIG_DIR: join(path, 'config'), ...env };
    t.teardown(() => {
      this.killAll();
      if (!t.passed && existsSync(this.dir.logFile)) t.log(this.log());
    });
  }

  /** Starts polyd and waits until it answers. */
  async start(timeoutMs = 10_000): Promise<Client> {
    const child = this.spawn();
    return until('polyd answers', timeoutMs, async () => {
      if (child.exitCode !== null) throw new Error(`polyd ended: ${this.stderr}`);
      return this.connect().catch(() => undefined);
    });
  }

  spawn(): ChildProcess {
    const child = spawn(process.execPath, [POLYD], { env: this.env, stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.child = child;
    return child;
  }

  connect(): Promise<Client> {
    return connectRpc<PolydMethods>(this.dir.controlSocket);
  }

  /** Ends polyd by `signal` and waits for it. */
  async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.child;
    if (!child) return;
    child.kill(signal);
    await until('polyd ends', 5000, () => child.exitCode !== null || child.signalCode !== null);
  }

  log(): string {
    return readFileSync(this.dir.logFile, 'utf8');
  }

  killAll(): void {
    // Twice: a service that was being started when polyd was killed.
    for (let round = 0; round < 2; round++) {
      for (const pid of processesOf(this.dir.path)) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // Gone by itself.
        }
      }
    }
  }
}

/** A daemon over the fake addon, and the directory to direct the fake by. */
export function fakeSite(t: ExecutionContext, env: NodeJS.ProcessEnv = {}): { site: Site; control: string } {
  const control = temporary(t, 'poly-fake-');
  return { site: new Site(t, { POLY_ADDON: FAKE_ADDON, POLY_FAKE_DIR: control, ...env }), control };
}

let device = 100;

/** prepare + commit without a kernel mount: for the fake addon. */
export async function mount(
  client: Client,
  path: string,
  spec: string,
  options: MountOptions = {},
): Promise<PrepareResult> {
  const prepared = await client.request('mount.prepare', { path, spec, options });
  if (prepared.outcome === 'full-match') return prepared;
  await client.request('mount.commit', {
    mount: prepared.mount,
    device: `0:${String(device++)}`,
    mountId: device,
  });
  return prepared;
}

export async function status(client: Client): Promise<StatusResult> {
  return client.request('status', {});
}

/** The error a promise rejects with, as `CODE message`. */
export async function failure(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    return `${code} ${error instanceof Error ? error.message : String(error)}`;
  }
  return 'no error';
}
