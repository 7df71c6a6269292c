/** Polytropon itself, through the command people use, with a daemon of the benchmark's own. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { PolydMethods } from '../../../server/protocol.ts';
import { connectRpc } from '../../../server/rpc.ts';
import { runDir } from '../../../server/rundir.ts';
import { preloadLibrary, repository } from '../paths.ts';
import { output, unmount } from './process.ts';
import type { CallCount, Family, FastPath, System } from './system.ts';

/** What `poly status --json` says of a service. */
export interface ServiceFigures {
  id: number;
  pid: number;
  pool: string | null;
  /** ISO 8601. */
  startedAt: string;
  rss: number;
  threads: number;
  mounts: number;
}

/** A private daemon: started with the first command, ended by `stop`. */
export class PolyDaemon {
  readonly #runDir: string;
  #started = false;

  constructor(runDir: string) {
    this.#runDir = runDir;
  }

  command(...args: string[]): Promise<string> {
    const env = { ...process.env, POLY_RUN_DIR: this.#runDir };
    return output(process.execPath, [join(repository, 'server/bin/poly.js'), ...args], { env });
  }

  /** Undefined, or why there is none. */
  async start(): Promise<string | undefined> {
    this.#started = true;
    return this.command('start').then(
      () => undefined,
      (error: unknown) => `poly start: ${String(error).trim().split('\n').at(-1) ?? ''}`,
    );
  }

  async services(): Promise<ServiceFigures[]> {
    const status = JSON.parse(await this.command('status', '--json')) as { services: ServiceFigures[] };
    return status.services;
  }

  /** As `poly run` sets it up. Counts are those of `poly stat --clients`, asked without its start-up time. */
  get fast(): FastPath {
    const dir = runDir(this.#runDir);
    return {
      environment: { LD_PRELOAD: preloadLibrary, POLY_ATTACH: dir.attachDir },
      count: (pids) => countCalls(dir.controlSocket, pids),
    };
  }

  async stop(): Promise<void> {
    if (!this.#started) return;
    await this.command('stop').catch((error: unknown) => {
      process.stderr.write(`bench: poly stop: ${String(error)}\n`);
    });
  }
}

async function countCalls(controlSocket: string, pids: readonly number[]): Promise<CallCount> {
  const polyd = await connectRpc<PolydMethods>(controlSocket);
  try {
    const { services } = await polyd.request('stats', {});
    const count: CallCount = { calls: 0, declined: 0 };
    for (const client of services.flatMap(({ clients }) => clients)) {
      if (!pids.includes(client.pid)) continue;
      count.calls += client.calls;
      count.declined += client.declined;
    }
    return count;
  } finally {
    polyd.end();
  }
}

export class Poly implements System {
  readonly ours = true;
  readonly name: string;
  readonly family: Family;
  readonly #daemon: PolyDaemon;
  #dir: string | undefined;

  constructor(family: 'memory' | 'local', daemon: PolyDaemon) {
    this.name = `poly ${family}`;
    this.family = family;
    this.#daemon = daemon;
  }

  unavailable(): Promise<string | undefined> {
    return this.#daemon.start();
  }

  async start(dir: string, backing: string): Promise<void> {
    this.#dir = dir;
    const mount = this.family === 'memory' ? ['memory', dir, '-o', 'size=4g'] : [`local:${backing}`, dir];
    await this.#daemon.command('mount', ...mount);
  }

  async stop(): Promise<void> {
    if (this.#dir === undefined) return;
    const dir = this.#dir;
    await this.#daemon.command('umount', dir).catch(() => unmount(dir));
  }

  async version(): Promise<string> {
    return (await this.#daemon.command('--version')).trim();
  }
}

/** One `memory` instance that is reached two ways, in turn; the first way that starts mounts it. */
export class SharedInstance {
  readonly mountName = 'poly-shared';
  readonly instance: Poly;
  readonly daemon: PolyDaemon;
  #users = 0;

  constructor(daemon: PolyDaemon) {
    this.daemon = daemon;
    this.instance = new Poly('memory', daemon);
  }

  async start(dir: string, backing: string): Promise<void> {
    if (this.#users++ === 0) await this.instance.start(dir, backing);
  }

  async stop(): Promise<void> {
    if (--this.#users === 0) await this.instance.stop();
  }
}

/** A way to it: the fast path, or our own FUSE front end, which it has to be worth it over. */
export class PolyWay implements System {
  readonly family = 'fast';
  readonly ours: boolean;
  readonly name: string;
  readonly mountName: string;
  readonly fast?: FastPath;
  readonly #shared: SharedInstance;

  constructor(way: 'fast' | 'fuse', shared: SharedInstance) {
    this.ours = way === 'fast';
    this.name = this.ours ? 'poly fast' : 'poly memory';
    this.mountName = shared.mountName;
    if (this.ours) this.fast = shared.daemon.fast;
    this.#shared = shared;
  }

  unavailable(): Promise<string | undefined> {
    const missing = this.ours && !existsSync(preloadLibrary);
    return missing ? Promise.resolve(`${preloadLibrary} is missing`) : this.#shared.instance.unavailable();
  }

  start(dir: string, backing: string): Promise<void> {
    return this.#shared.start(dir, backing);
  }

  stop(): Promise<void> {
    return this.#shared.stop();
  }

  version(): Promise<string> {
    return this.#shared.instance.version();
  }
}
