/**
 * polyd without its process: the control socket and the methods behind it.
 */
import { readFileSync, unlinkSync } from 'node:fs';
import type { Server, Socket } from 'node:net';
import { sweepGroups } from './cgroup.ts';
import { loadConfig } from './config.ts';
import { errorCode, errorMessage, PolyError } from './errors.ts';
import { Keeper } from './keeper.ts';
import type { Logger } from './log.ts';
import { keepTable, openTable, publishMountPoints, syncTable, TABLE_CAPACITY } from './mount_table.ts';
import { Mounts } from './mounts.ts';
import type { ClientStats, NativeAddon, NativeMountTable, NativeMountWatch } from './native.ts';
import { commandOf } from './process.ts';
import { schemas, type Method, type StatsResult, type StatusResult } from './protocol.ts';
import { listenRpc, socketFd, UnknownMethod, type PeerHandlers, type RpcPeer } from './rpc.ts';
import type { RunDir } from './rundir.ts';
import { salvage } from './salvage.ts';
import { emptyState, loadState, saveState, type State } from './state.ts';
import { Supervisor, type Context } from './supervisor.ts';

const MAX_CONNECTIONS = 1024;
const CHECK_MS = 2000;
/** A killed service that does not say so must have a successor within a second. */
const GONE_MS = 250;
const STATS_TIMEOUT_MS = 2000;

export interface DaemonOptions {
  dir: RunDir;
  addon: NativeAddon;
  log: Logger;
  /** A client asked polyd to end. */
  onStop: () => void;
}

export class Daemon {
  private readonly context: Context;
  private readonly table: NativeMountTable;
  private readonly supervisor: Supervisor;
  private readonly mounts: Mounts;
  private readonly onStop: () => void;
  private readonly startedAt = new Date().toISOString();
  private readonly peers = new Set<RpcPeer>();
  private server: Server | undefined;
  /** Called when mounts come or go. */
  onChange: () => void = () => undefined;
  private checks: NodeJS.Timeout | undefined;
  private goneChecks: NodeJS.Timeout | undefined;
  private watch: NativeMountWatch | undefined;
  /** Mounts that were out of lookups the last time, to be told once. */
  private hidden = 0;

  private constructor(context: Context, table: NativeMountTable, onStop: () => void) {
    this.context = context;
    this.table = table;
    this.onStop = onStop;
    this.supervisor = new Supervisor(context, {
      onEvent: (service, event) => {
        this.mounts.onEvent(service, event);
      },
      onMountLost: (_service, mount, error) => {
        this.mounts.onMountLost(mount, error);
      },
    });
    this.mounts = new Mounts(context, this.supervisor, table, () => loadConfig());
    this.mounts.onChange = () => {
      this.followMounts();
      this.onChange();
    };
  }

  get mountCount(): number {
    return this.context.state.mounts.length;
  }

  /** Takes up what an earlier polyd left, then listens. The run directory's lock must be held. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const { dir, addon, log } = options;
    const state = readState(dir, log);
    const keeper = await Keeper.open(dir, addon);
    const table = openTable(addon, keeper, log);
    const context: Context = {
      dir,
      addon,
      keeper,
      log,
      state,
      save: () => {
        saveState(dir.stateFile, context.state);
      },
    };
    await salvage(context, table);
    syncTable(table, context.state);
    const daemon = new Daemon(context, table, options.onStop);
    await daemon.open();
    return daemon;
  }

  private async open(): Promise<void> {
    const { dir, keeper, log } = this.context;
    keeper.onLost = (reason) => {
      log.error(`the keeper is dead (${reason}): starting another one`);
    };
    keeper.onReplaced = () => {
      log.warn(
        { keeper: keeper.status().pid },
        'another keeper runs, and gets from the services what they hold',
      );
      keepTable(keeper, this.table);
      void this.supervisor.restock();
    };
    sweepGroups();
    await this.supervisor.adopt();
    // The keeper may have died while there was no polyd.
    await this.supervisor.restock();
    this.mounts.endUnused();
    this.context.save();
    // What was mounted before the watch began is seen by the first look.
    this.watch = this.context.addon.watchMounts(() => {
      this.followMounts();
    });
    this.followMounts();
    // Nobody listens there: we hold the lock.
    removeStale(dir.controlSocket);
    this.server = await listenRpc(dir.controlSocket, {
      maxConnections: MAX_CONNECTIONS,
      accept: (socket) => this.accept(socket),
      onPeer: (peer) => this.peers.add(peer),
    });
    this.checks = setInterval(() => {
      keeper.check();
      void this.supervisor.restock();
      this.supervisor.checkHung();
      this.mounts.sweepFailed();
      this.mounts.sweepHung();
    }, CHECK_MS);
    this.goneChecks = setInterval(() => {
      this.supervisor.checkGone();
    }, GONE_MS);
  }

  /** Others have mounted or unmounted something, or our mounts have changed: the fast path must look again. */
  private followMounts(): void {
    const { log } = this.context;
    try {
      publishMountPoints(this.context.dir.mountPoints, this.table);
      const { hidden } = this.table.followMounts();
      if (hidden > this.hidden)
        log.warn(`too many mounts below ours: ${String(hidden)} of ours have no fast path`);
      this.hidden = hidden;
    } catch (error) {
      log.error(errorMessage(error));
    }
  }

  private accept(socket: Socket): PeerHandlers {
    const { uid } = this.context.addon.peerCredentials(socketFd(socket));
    const own = process.geteuid?.();
    if (uid !== own && uid !== 0) {
      this.context.log.warn({ uid }, 'connection refused');
      throw new PolyError('EPERM', `this polyd belongs to uid ${String(own)}`);
    }
    return {
      onRequest: (method, params, peer) => this.handle(method, params, peer),
      onClose: (peer) => {
        this.peers.delete(peer);
        this.mounts.abortAll(peer);
      },
    };
  }

  // --- Methods -------------------------------------------------------------------------------------------------

  private handle(method: string, params: unknown, peer: RpcPeer): unknown {
    if (!isMethod(method)) throw new UnknownMethod(method);
    switch (method) {
      case 'status':
        validate(method, params);
        return this.status();
      case 'mount.prepare':
        return this.mounts.prepare(validate(method, params), peer);
      case 'mount.commit':
        return this.mounts.commit(validate(method, params), peer);
      case 'mount.abort':
        this.mounts.abort(validate(method, params), peer);
        return {};
      case 'mount.list':
        validate(method, params);
        return this.mounts.list();
      case 'mount.find':
        return this.mounts.find(validate(method, params).path);
      case 'mount.remount':
        return this.mounts.remount(validate(method, params));
      case 'mount.gone': {
        const { path, timeoutMs } = validate(method, params);
        return this.mounts.gone(path, timeoutMs);
      }
      case 'mount.forget':
        this.mounts.forget(validate(method, params).path);
        return {};
      case 'mount.release':
        return this.mounts.releaseCalls(validate(method, params).path);
      case 'stats':
        return this.stats(validate(method, params).path);
      case 'stop':
        return this.stop(validate(method, params).mounts);
    }
  }

  private status(): StatusResult {
    return {
      pid: process.pid,
      version: packageVersion(),
      startedAt: this.startedAt,
      runDir: this.context.dir.path,
      keeper: this.context.keeper.status(),
      services: this.supervisor.info(),
      table: { entries: this.table.entries().length, capacity: TABLE_CAPACITY },
    };
  }

  /** Without `path`, services that do not answer, or die over the answer, cost only their own part. */
  private async stats(path: string | undefined): Promise<StatsResult> {
    const mounts = this.mounts.list().filter((mount) => path === undefined || mount.path === path);
    if (path !== undefined && mounts.length === 0) throw new PolyError('EINVAL', `${path}: not a poly mount`);
    const paths = new Map(
      mounts.map((mount) => [`${String(mount.service)}/${String(mount.instance)}`, mount.path]),
    );
    const services = this.supervisor
      .all()
      .filter((service) => mounts.some((mount) => mount.service === service.id));
    const silent: number[] = [];
    const answers = services.map(async (service) => {
      try {
        if (service.hung && path === undefined) throw new PolyError('ETIMEDOUT', 'hangs');
        const peer = await service.ready(STATS_TIMEOUT_MS);
        const stats = await peer.request('stats', {}, STATS_TIMEOUT_MS);
        const instances = stats.instances.flatMap((instance) => {
          const at = paths.get(`${String(service.id)}/${String(instance.instance)}`);
          return at === undefined ? [] : [{ ...instance, path: at }];
        });
        const clients = describeClients(stats.clients, new Set(instances.map(({ instance }) => instance)));
        const { pool, pid } = service.record;
        return [{ ...stats, service: service.id, pool, pid, instances, clients }];
      } catch (error) {
        if (path !== undefined) throw error;
        this.context.log.info({ service: service.id, error: errorMessage(error) }, 'no statistics');
        silent.push(service.id);
        return [];
      }
    });
    return { services: (await Promise.all(answers)).flat(), silent };
  }

  private async stop(mounts: 'unmount' | 'keep'): Promise<Record<string, never>> {
    if (mounts === 'unmount') {
      const left = this.mounts.list().map((mount) => mount.path);
      if (left.length > 0) throw new PolyError('EBUSY', `still mounted: ${left.slice(0, 3).join(', ')}`);
      await this.supervisor.stopAll();
      this.watch?.close(); // it would write the list anew
      this.watch = undefined;
      removeStale(this.context.dir.mountPoints);
      saveState(this.context.dir.stateFile, { ...emptyState(), nextService: this.context.state.nextService });
      this.context.keeper.end();
    }
    this.context.log.info({ mounts }, 'stop asked for');
    // After the answer.
    setImmediate(this.onStop);
    return {};
  }

  /** Ends polyd's part; mounts, services and the keeper live on. */
  close(): void {
    clearInterval(this.checks);
    clearInterval(this.goneChecks);
    this.watch?.close();
    this.mounts.close();
    this.server?.close();
    for (const peer of this.peers) peer.end();
    this.supervisor.release();
    removeStale(this.context.dir.controlSocket);
  }
}

/** Clients of these instances, with what their processes are called. */
function describeClients(
  clients: ClientStats[] | undefined,
  instances: Set<number>,
): (ClientStats & { command: string })[] {
  // An older service that is still running tells of none, and one that tells no instances may mean any.
  return (clients ?? [])
    .filter((client) => client.instances?.some((instance) => instances.has(instance)) ?? true)
    .map((client) => ({ ...client, command: commandOf(client.pid) }));
}

function isMethod(method: string): method is Method {
  return Object.hasOwn(schemas, method);
}

function validate<M extends Method>(method: M, params: unknown): ReturnType<(typeof schemas)[M]['parse']> {
  const result = schemas[method].safeParse(params);
  if (result.success) return result.data as ReturnType<(typeof schemas)[M]['parse']>;
  const issue = result.error.issues[0];
  const where = issue?.path.map(String).join('.') ?? '';
  throw new PolyError(
    'EINVAL',
    `${method}: ${where === '' ? '' : `${where}: `}${issue?.message ?? 'invalid'}`,
  );
}

/** A damaged state is reported once; services and mount table then tell what they can (server/salvage.ts). */
function readState(dir: RunDir, log: Logger): State {
  try {
    return loadState(dir.stateFile);
  } catch (error) {
    if (errorCode(error) !== 'EUCLEAN') throw error;
    log.error(errorMessage(error));
    return emptyState();
  }
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const parsed: unknown = JSON.parse(text);
  return typeof parsed === 'object' && parsed !== null && 'version' in parsed
    ? String(parsed.version)
    : 'unknown';
}

function removeStale(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // ENOENT.
  }
}
