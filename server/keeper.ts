/**
 * The keeper: a tiny native process that holds every file descriptor which must outlive polyd and the services.
 * polyd finds the running one by its socket, or starts one that is detached from it.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { errorCode, errorMessage, PolyError, withContext } from './errors.ts';
import type { NativeAddon, NativeKeeper } from './native.ts';
import { sendSignal } from './process.ts';
import type { KeeperStatus } from './protocol.ts';
import type { RunDir } from './rundir.ts';

/** Under which name polyd keeps the mount table's memfd (native/keeper/protocol.hpp: kTableName). */
export const TABLE_NAME = 'polyd/table';

const START_TIMEOUT_MS = 5000;
/** Errors that mean that the keeper is gone. */
const LOST = new Set(['EPIPE', 'ECONNRESET', 'ENOTCONN', 'ECONNREFUSED', 'EBADF']);

/** The keeper's program; POLY_KEEPER overrides it. */
function keeperProgram(): string {
  return (
    process.env['POLY_KEEPER'] ??
    fileURLToPath(new URL('../../build/native/native/poly-keeper', import.meta.url))
  );
}

/** What a service's names in the keeper begin with. */
export function serviceScope(service: number): string {
  return `service-${String(service)}/`;
}

/** Where the client puts the mounted /dev/fuse fd of an instance. */
export function fuseName(service: number, instance: number): string {
  return `${serviceScope(service)}fuse/${String(instance)}/0`;
}

function nobodyThere(error: unknown): boolean {
  const code = errorCode(error);
  return code === 'ENOENT' || code === 'ECONNREFUSED';
}

function startKeeper(dir: RunDir): Promise<never> {
  const program = keeperProgram();
  const log = openSync(dir.keeperLog, 'a', 0o600);
  const child = spawn(program, ['--socket', dir.keeperSocket, '--table-socket', dir.tableSocket], {
    detached: true,
    stdio: ['ignore', 'ignore', log],
    cwd: '/',
  });
  closeSync(log);
  child.unref();
  return new Promise((_, reject) => {
    child.once('error', (error) => {
      reject(withContext(`cannot start the keeper ${program}`, error));
    });
    child.once('exit', (code, signal) => {
      const how = signal ?? `status ${String(code)}`;
      reject(new PolyError('EIO', `the keeper ended at once (${how}; see ${dir.keeperLog})`));
    });
  });
}

async function waitForKeeper(dir: RunDir, addon: NativeAddon): Promise<NativeKeeper> {
  for (let waited = 0; waited < START_TIMEOUT_MS; waited += 5) {
    try {
      return addon.keeperConnect(dir.keeperSocket);
    } catch (error) {
      if (!nobodyThere(error)) throw withContext('cannot connect to the keeper', error);
    }
    await sleep(5);
  }
  throw new PolyError('ETIMEDOUT', `the keeper does not answer (see ${dir.keeperLog})`);
}

/** Connects to the keeper, starting it where none listens; `onExit` is for the end of one that was started. */
async function connectKeeper(dir: RunDir, addon: NativeAddon, onExit: () => void): Promise<NativeKeeper> {
  try {
    return addon.keeperConnect(dir.keeperSocket);
  } catch (error) {
    if (!nobodyThere(error)) throw withContext(`cannot connect to the keeper at ${dir.keeperSocket}`, error);
  }
  const failed = startKeeper(dir);
  // Whichever comes first; a later end of the keeper only calls.
  failed.catch(onExit);
  return Promise.race([waitForKeeper(dir, addon), failed]);
}

/** polyd's connection to the keeper, opened again should the keeper die. */
export class Keeper {
  private readonly dir: RunDir;
  private readonly addon: NativeAddon;
  /** None while the keeper is dead, and in the end. */
  private connection: NativeKeeper | undefined;
  private restarts = 0;
  /** The keeper has died; another one is being started. */
  onLost: (reason: string) => void = () => undefined;
  /** A new, empty keeper has taken the place of one that died. */
  onReplaced: () => void = () => undefined;

  private constructor(dir: RunDir, addon: NativeAddon) {
    this.dir = dir;
    this.addon = addon;
  }

  static async open(dir: RunDir, addon: NativeAddon): Promise<Keeper> {
    const keeper = new Keeper(dir, addon);
    keeper.connection = await keeper.connect();
    return keeper;
  }

  /** A keeper that we have started tells us its end; of another's the next call tells. */
  private connect(): Promise<NativeKeeper> {
    return connectKeeper(this.dir, this.addon, () => {
      this.check();
    });
  }

  /** Runs `work` with the connection. When the connection breaks, EIO now and a new keeper soon. */
  call<T>(work: (keeper: NativeKeeper) => T): T {
    const { connection } = this;
    if (!connection) throw new PolyError('EIO', 'the keeper is being restarted');
    try {
      return work(connection);
    } catch (error) {
      if (LOST.has(errorCode(error) ?? '')) {
        connection.close();
        this.connection = undefined;
        this.onLost(errorMessage(error));
        void this.reopen();
      }
      throw withContext('keeper', error);
    }
  }

  private async reopen(): Promise<void> {
    try {
      this.connection = await this.connect();
    } catch (error) {
      this.onLost(errorMessage(error));
      setTimeout(() => void this.reopen(), 1000).unref();
      return;
    }
    this.restarts++;
    this.onReplaced();
  }

  /** Finds out whether the keeper lives; onLost tells when it does not. */
  check(): void {
    this.status();
  }

  status(): KeeperStatus {
    const { restarts } = this;
    try {
      return { ...this.call((connection) => connection.ping()), restarts };
    } catch {
      return { pid: 0, fds: 0, names: 0, dropped: 0, restarts };
    }
  }

  /** Ends the keeper: every fd it holds is closed. */
  end(): void {
    const { pid } = this.call((connection) => connection.ping());
    this.close();
    sendSignal(pid, 'SIGTERM');
  }

  /** Lets go of the keeper; a later call fails and starts no other one. */
  close(): void {
    this.connection?.close();
    this.connection = undefined;
  }
}
