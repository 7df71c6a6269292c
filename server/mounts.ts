/**
 * Mount requests and their three outcomes, and the mounts there are.
 *
 * polyd never looks at a mount path in the filesystem: the service behind it might be dead, and the mount may be in
 * another mount namespace. Paths are text here; clients resolve them.
 */
import type { Config } from './config.ts';
import { errorCode, errorMessage, PolyError, withContext } from './errors.ts';
import { fuseName } from './keeper.ts';
import type { ManagedService } from './managed_service.ts';
import { enterMount } from './mount_table.ts';
import { readMountinfo } from './mountinfo.ts';
import type { NativeMountTable, ServiceEvent } from './native.ts';
import {
  answerFor,
  checkLayer,
  checkPoll,
  checkSame,
  fullMatch,
  identified,
  newLibservice,
  pathWithin,
  tableEntry,
  timeouts,
} from './mount_request.ts';
import { isFixed, mergeOptions, parseSettings, type MountSettings } from './options.ts';
import { allowedCpus } from './process.ts';
import type { MountInfo, MountState, Params, PrepareResult, RemountResult } from './protocol.ts';
import { raiseReadahead } from './readahead.ts';
import { parseSpec, type ResolvedSpec } from './spec.ts';
import type { LibserviceRecord, MountRecord } from './state.ts';
import type { Context, Supervisor } from './supervisor.ts';

/** A prepared mount that is not committed by then is aborted. */
export const PREPARE_TIMEOUT_MS = 30_000;
const COMMIT_TIMEOUT_MS = 15_000;
const RELEASE_TIMEOUT_MS = 5000;

interface Prepared {
  id: number;
  /** The connection it was prepared over. */
  owner: object;
  record: MountRecord;
  libservice: LibserviceRecord;
  service: ManagedService;
  spec: ResolvedSpec;
  opening: Promise<void> | undefined;
  timer: NodeJS.Timeout | undefined;
}

function mountState(service: ManagedService): MountState {
  if (service.hung) return 'hung';
  return service.state === 'running' ? 'mounted' : 'recovering';
}

interface Waiter {
  path: string;
  resolve: (released: Promise<void>) => void;
}

export class Mounts {
  private readonly context: Context;
  private readonly supervisor: Supervisor;
  private readonly table: NativeMountTable;
  private readonly loadConfig: () => Config;
  private readonly prepared = new Map<number, Prepared>();
  /** Mounts nobody can serve any more, with the reason. */
  private readonly failed = new Map<MountRecord, string>();
  private waiters: Waiter[] = [];
  /** By path: that the backend of a mount which is gone has been left. */
  private readonly releasing = new Map<string, Promise<void>>();
  /** Called when mounts come, go or change. */
  onChange: () => void = () => undefined;

  constructor(context: Context, supervisor: Supervisor, table: NativeMountTable, loadConfig: () => Config) {
    this.context = context;
    this.supervisor = supervisor;
    this.table = table;
    this.loadConfig = loadConfig;
  }

  // --- Mount requests ------------------------------------------------------------------------------------------

  async prepare(params: Params<'mount.prepare'>, owner: object): Promise<PrepareResult> {
    const { path } = params;
    const parsed = parseSpec(params.spec, this.loadConfig);
    const options = mergeOptions(parsed.options, params.options);
    const settings = parseSettings(options);
    checkLayer(parsed, settings);
    const spec = identified(parsed, settings);
    const source = params.source ?? params.spec;
    await this.opened(spec);
    const existing = this.at(path);
    if (existing) return fullMatch(existing, spec, settings, source);
    if ([...this.prepared.values()].some((other) => other.record.path === path)) {
      throw new PolyError('EBUSY', `${path}: another mount request is at work there`);
    }
    this.refuseOwnSource(spec);
    const { service, outcome } = this.choose(path, spec, settings);
    let libservice;
    try {
      libservice = this.libserviceFor(service, spec, settings);
    } catch (error) {
      void this.endIfUnused(service);
      throw error;
    }
    const record: MountRecord = {
      path,
      spec: params.spec,
      identity: spec.identity,
      subdirectory: pathWithin(libservice, spec) ?? spec.subdirectory,
      source,
      service: service.id,
      instance: service.record.nextInstance++,
      libservice: libservice.id,
      outcome,
      options,
      readOnly: settings.flags.ro === true,
      ...timeouts(spec, settings),
      device: '0:0',
      mountId: 0,
      since: '',
    };
    const mount = this.remember({ owner, record, libservice, service, spec, opening: undefined });
    if (spec.type !== 'memory') await this.openSource(mount);
    return { mount, outcome, ...answerFor(record, settings) };
  }

  /** Before the client mounts: it may mount over the very directory, and a cluster may say no. */
  private async openSource(mount: number): Promise<void> {
    const entry = this.prepared.get(mount);
    if (!entry) return;
    try {
      entry.opening = entry.service.open(entry.libservice, COMMIT_TIMEOUT_MS);
      await entry.opening;
      // Its root may turn out to be a directory above.
      entry.record.subdirectory = pathWithin(entry.libservice, entry.spec) ?? entry.record.subdirectory;
    } catch (error) {
      this.discard(mount);
      throw withContext(entry.record.spec, error);
    }
    // Its client went away meanwhile.
    if (!this.prepared.has(mount)) throw new PolyError('ECANCELED', 'the mount request was withdrawn');
  }

  /** What of a tenant's one client gives access to is known once it has been made. */
  private async opened(spec: ResolvedSpec): Promise<void> {
    if (spec.tenant === undefined) return;
    const pending = [...this.prepared.values()].filter((other) => other.spec.tenant === spec.tenant);
    await Promise.allSettled(pending.map((other) => other.opening ?? Promise.resolve()));
  }

  private remember(entry: Omit<Prepared, 'id' | 'timer'>): number {
    const id = this.context.state.nextMount++;
    const timer = setTimeout(() => {
      this.context.log.warn({ mount: entry.record.path }, 'prepared but never committed');
      this.discard(id);
    }, PREPARE_TIMEOUT_MS);
    this.prepared.set(id, { id, ...entry, timer });
    this.context.save();
    return id;
  }

  /** The service of a mount request that is no full match: the pool's, the matching one if sharing is asked, a new one. */
  private choose(
    path: string,
    spec: ResolvedSpec,
    settings: MountSettings,
  ): { service: ManagedService; outcome: 'shared' | 'new-service' } {
    const pool = settings.pool ?? spec.pool ?? null;
    const existing =
      pool !== null ? this.supervisor.ofPool(pool) : settings.share ? this.serviceAbove(path) : undefined;
    const { poll } = settings;
    if (existing && existing.state !== 'stopping') {
      checkPoll(existing.record, poll);
      return { service: existing, outcome: 'shared' };
    }
    if (poll !== undefined && !allowedCpus().includes(poll))
      throw new PolyError('EINVAL', `option poll=${String(poll)}: there is no such CPU for us`);
    return { service: this.supervisor.create(pool, poll), outcome: 'new-service' };
  }

  /** The service with the longest mount path that is a prefix of `path`, by whole components. */
  private serviceAbove(path: string): ManagedService | undefined {
    const match = this.table.lookup(path);
    return match && !match.kernel ? this.supervisor.get(match.service) : undefined;
  }

  /** A service that opens a directory of a poly mount could end up waiting for itself. */
  private refuseOwnSource(spec: ResolvedSpec): void {
    const match = spec.type === 'local' && spec.source !== undefined ? this.table.lookup(spec.source) : null;
    if (!match || match.kernel) return;
    const there = this.at(match.path)?.spec ?? 'a filesystem of ours';
    throw new PolyError(
      'EINVAL',
      `${spec.text}: lies in the poly mount ${match.path}; mount ${there} once more instead`,
    );
  }

  private libserviceFor(
    service: ManagedService,
    spec: ResolvedSpec,
    settings: MountSettings,
  ): LibserviceRecord {
    const pending = [...this.prepared.values()].filter((other) => other.service === service);
    const known = [...service.record.libservices, ...pending.map((other) => other.libservice)];
    const same = known.find((record) => pathWithin(record, spec) !== undefined);
    if (!same) return newLibservice(service.record.nextLibservice++, spec, settings);
    checkSame(same, spec, settings);
    return same;
  }

  async commit(params: Params<'mount.commit'>, owner: object): Promise<void> {
    const entry = this.owned(params.mount, owner);
    if (entry.timer === undefined) throw new PolyError('EALREADY', 'this mount is being committed');
    clearTimeout(entry.timer);
    entry.timer = undefined;
    const { record, libservice, service } = entry;
    record.device = params.device;
    record.mountId = params.mountId;
    record.since = new Date().toISOString();
    try {
      await service.serve(libservice, record, COMMIT_TIMEOUT_MS);
      enterMount(this.table, tableEntry(record));
      raiseReadahead(record.device);
    } catch (error) {
      this.discard(entry.id);
      const note =
        errorCode(error) === 'ENOENT' && libservice.type === 'local' ? ` (${libservice.source ?? ''})` : '';
      throw withContext(`${record.spec} on ${record.path}${note}`, error);
    }
    this.prepared.delete(entry.id);
    const { libservices } = service.record;
    if (!libservices.some((other) => other.id === libservice.id)) libservices.push(libservice);
    this.context.state.mounts.push(record);
    this.context.save();
    this.log(record, 'mounted');
    this.onChange();
  }

  abort(params: Params<'mount.abort'>, owner: object): void {
    this.discard(this.owned(params.mount, owner).id);
  }

  /** The connection of a client is gone, and with it what it had prepared. */
  abortAll(owner: object): void {
    for (const entry of [...this.prepared.values()]) {
      if (entry.owner === owner && entry.timer !== undefined) this.discard(entry.id);
    }
  }

  private owned(mount: number, owner: object): Prepared {
    const entry = this.prepared.get(mount);
    if (entry?.owner !== owner) throw new PolyError('ENOENT', `no mount ${String(mount)} was prepared here`);
    return entry;
  }

  private discard(id: number): void {
    const entry = this.prepared.get(id);
    if (!entry) return;
    clearTimeout(entry.timer);
    this.prepared.delete(id);
    void this.release(entry.record);
  }

  // --- The mounts there are ------------------------------------------------------------------------------------

  private at(path: string): MountRecord | undefined {
    return this.context.state.mounts.find((mount) => mount.path === path);
  }

  private existing(path: string): MountRecord {
    const mount = this.at(path);
    if (!mount) throw new PolyError('EINVAL', `${path}: not a poly mount`);
    return mount;
  }

  list(): MountInfo[] {
    return this.context.state.mounts.map((mount) => this.info(mount));
  }

  find(path: string): MountInfo | null {
    const mount = this.at(path);
    return mount ? this.info(mount) : null;
  }

  private info(mount: MountRecord): MountInfo {
    const service = this.supervisor.get(mount.service);
    const libservice = service.record.libservices.find((record) => record.id === mount.libservice);
    const shares = this.context.state.mounts.filter(
      (other) => other !== mount && other.service === mount.service && other.libservice === mount.libservice,
    );
    const { path, spec, source, instance, outcome, options, readOnly, device, mountId, since } = mount;
    const state = this.failed.has(mount) ? 'failed' : mountState(service);
    return {
      path,
      spec,
      type: libservice?.type ?? 'memory',
      source,
      service: service.id,
      instance,
      pool: service.record.pool,
      outcome,
      shares: shares.map((other) => other.path),
      options,
      readOnly,
      state,
      device,
      mountId,
      since,
    };
  }

  /** Changes ro and rw here; the kernel's flags are the client's to change. */
  async remount(params: Params<'mount.remount'>): Promise<RemountResult> {
    const mount = this.existing(params.path);
    const options = mergeOptions(mount.options, params.options);
    const settings = parseSettings(options);
    const changed = Object.keys(options).find((key) => isFixed(key) && options[key] !== mount.options[key]);
    if (changed !== undefined)
      throw new PolyError('EINVAL', `option ${changed}: cannot be changed by remount`);
    const readOnly = settings.flags.ro === true;
    if (readOnly !== mount.readOnly) {
      const peer = await this.supervisor.get(mount.service).ready(COMMIT_TIMEOUT_MS);
      await peer.request('instance.readonly', { id: mount.instance, readOnly }, COMMIT_TIMEOUT_MS);
      mount.readOnly = readOnly;
      this.table.update(tableEntry(mount));
    }
    mount.options = options;
    this.context.save();
    this.log(mount, 'remounted');
    this.onChange();
    return { flags: settings.flags };
  }

  /** Lets go of the calls of a mount whose backend does not answer. */
  async releaseCalls(path: string): Promise<{ answered: number }> {
    const mount = this.existing(path);
    const peer = await this.supervisor.get(mount.service).ready(RELEASE_TIMEOUT_MS);
    return peer.request('instance.release', { id: mount.instance }, RELEASE_TIMEOUT_MS);
  }

  /** Resolves when nothing of ours is mounted on `path`, and what its backend had not got yet has been written back. */
  gone(path: string, timeoutMs: number): Promise<void> {
    const mount = this.at(path);
    if (!mount) return this.releasing.get(path) ?? Promise.resolve();
    // Nobody serves a failed mount, so nobody would see it go.
    if (this.failed.has(mount)) {
      this.drop(mount, 'unmounted');
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        path,
        resolve: (released) => {
          clearTimeout(timer);
          resolve(released);
        },
      };
      const timer = setTimeout(() => {
        this.waiters = this.waiters.filter((other) => other !== waiter);
        reject(new PolyError('ETIMEDOUT', `${path}: still mounted after ${String(timeoutMs)} ms`));
      }, timeoutMs);
      this.waiters.push(waiter);
    });
  }

  /**
   * Nobody serves a failed mount, so nobody sees it go: it is looked for in our mountinfo, proc(5), whose reading touches
   * no filesystem.
   */
  sweepFailed(): void {
    if (this.failed.size === 0) return;
    const lines = readMountinfo();
    for (const mount of [...this.failed.keys()]) {
      const { path, mountId, device } = mount;
      // The kernel gives ids and devices out again at once: what has both may be another mount.
      const there = lines.some(
        (line) => line.mountId === mountId && line.device === device && line.path === path,
      );
      if (!there) this.drop(mount, 'unmounted');
    }
  }

  /** A service that hangs does not tell of the end of its mounts: the kernel is asked. */
  sweepHung(): void {
    for (const mount of this.context.state.mounts) {
      if (this.supervisor.find(mount.service)?.hung && this.hasEnded(mount)) this.drop(mount, 'unmounted');
    }
  }

  private hasEnded(mount: MountRecord): boolean {
    const { addon, keeper } = this.context;
    try {
      const name = fuseName(mount.service, mount.instance);
      const fds = keeper.call((connection) => connection.get(name)).flatMap((item) => item.fds);
      const ended = fds.some((fd) => addon.fuseEnded(fd));
      for (const fd of fds) addon.closeFd(fd);
      return ended;
    } catch (error) {
      this.context.log.warn({ mount: mount.path }, errorMessage(error));
      return false;
    }
  }

  /** Gives a mount up; one that has ended before we were asked is given up already. */
  forget(path: string): void {
    const mount = this.at(path);
    if (mount) this.drop(mount, 'forgotten');
  }

  onEvent(service: ManagedService, event: ServiceEvent): void {
    if (event.type === 'error') {
      this.context.log.error({ service: service.id }, event.message);
      return;
    }
    const mount = this.context.state.mounts.find(
      (other) => other.service === service.id && other.instance === event.instance,
    );
    if (!mount || event.type === 'instance-ready') return;
    if (event.reason === 'unmounted') this.drop(mount, 'unmounted');
    else this.fail(mount, event.message);
  }

  /** A successor could not take the mount up: it was unmounted meanwhile, or it is lost. */
  onMountLost(mount: MountRecord, error: unknown): void {
    if (errorCode(error) === 'ENODEV' || errorCode(error) === 'ENOTCONN')
      this.drop(mount, 'unmounted meanwhile');
    else this.fail(mount, errorMessage(error));
  }

  private fail(mount: MountRecord, reason: string): void {
    this.failed.set(mount, reason);
    this.context.log.error({ service: mount.service, mount: mount.path }, `failed: ${reason}`);
  }

  private drop(mount: MountRecord, reason: string): void {
    const { state } = this.context;
    if (!state.mounts.includes(mount)) return;
    state.mounts = state.mounts.filter((other) => other !== mount);
    this.failed.delete(mount);
    try {
      this.table.remove(mount.path);
    } catch (error) {
      this.context.log.warn({ mount: mount.path }, `mount table: ${errorMessage(error)}`);
    }
    this.log(mount, reason);
    this.onChange();
    const releasing = this.release(mount);
    // One that hangs has to be killed first, in its own time.
    const released = this.supervisor.find(mount.service)?.hung === true ? Promise.resolve() : releasing;
    // Who asks for its end may come after it.
    this.releasing.set(mount.path, released);
    const over = (): void => {
      if (this.releasing.get(mount.path) === released) this.releasing.delete(mount.path);
    };
    released.then(over, over);
    const done = this.waiters.filter((waiter) => waiter.path === mount.path);
    this.waiters = this.waiters.filter((waiter) => waiter.path !== mount.path);
    for (const waiter of done) waiter.resolve(released);
  }

  /** Frees what a mount had: its instance, its libservice if nobody else uses it, its fds, its service if unused. */
  private async release(mount: MountRecord): Promise<void> {
    const service = this.supervisor.find(mount.service);
    if (!service) return;
    const shared = this.users(service).some((other) => other.libservice === mount.libservice);
    if (!shared) {
      service.record.libservices = service.record.libservices.filter(
        (record) => record.id !== mount.libservice,
      );
    }
    this.context.save();
    const ended = this.endIfUnused(service);
    if (ended) return ended;
    await service.drop(mount.instance, shared ? undefined : mount.libservice);
    try {
      const prefix = fuseName(mount.service, mount.instance).replace(/0$/, '');
      this.context.keeper.call((connection) => {
        connection.clear(prefix);
      });
    } catch (error) {
      this.context.log.warn({ mount: mount.path }, errorMessage(error));
    }
  }

  /** All mounts of a service, prepared ones too. */
  private users(service: ManagedService): MountRecord[] {
    const pending = [...this.prepared.values()].map((entry) => entry.record);
    return [...this.context.state.mounts, ...pending].filter((mount) => mount.service === service.id);
  }

  private endIfUnused(service: ManagedService): Promise<void> | undefined {
    return this.users(service).length > 0 ? undefined : service.stop();
  }

  /** After adoption: services without a mount (polyd died between start and commit) are ended. */
  endUnused(): void {
    for (const service of this.supervisor.all()) void this.endIfUnused(service);
  }

  /** polyd ends: nothing is undone, the next polyd finds what is unfinished. */
  close(): void {
    for (const entry of this.prepared.values()) clearTimeout(entry.timer);
    this.prepared.clear();
  }

  private log(mount: MountRecord, message: string): void {
    const { path, spec, service, instance } = mount;
    this.context.log.info({ mount: path, spec, service, instance }, message);
  }
}
