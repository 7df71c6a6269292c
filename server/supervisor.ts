/**
 * All services of this polyd: creates, adopts, lists and ends them.
 */
import type { ChildProcess } from 'node:child_process';
import { statSync, unlinkSync } from 'node:fs';
import { errorMessage, PolyError } from './errors.ts';
import { type Keeper, serviceScope } from './keeper.ts';
import type { Logger } from './log.ts';
import { ManagedService, type ServiceHost } from './managed_service.ts';
import type { NativeAddon, ServiceEvent } from './native.ts';
import { startTimeOf, usageOf } from './process.ts';
import type { ServiceInfo } from './protocol.ts';
import { socketFd } from './rpc.ts';
import type { RunDir } from './rundir.ts';
import { spawnService } from './spawn.ts';
import type { MountRecord, ServiceRecord, State } from './state.ts';

/** What polyd's parts share. */
export interface Context {
  dir: RunDir;
  addon: NativeAddon;
  keeper: Keeper;
  state: State;
  save: () => void;
  log: Logger;
}

export interface SupervisorEvents {
  onEvent: (service: ManagedService, event: ServiceEvent) => void;
  onMountLost: (service: ManagedService, mount: MountRecord, error: unknown) => void;
}

export class Supervisor {
  private readonly context: Context;
  private readonly services = new Map<number, ManagedService>();
  private readonly host: ServiceHost;
  private readonly handingOver = new Set<number>();
  /** Services that could not hand over all to a new keeper. */
  private readonly unkept = new Set<number>();

  constructor(context: Context, events: SupervisorEvents) {
    this.context = context;
    this.host = {
      spawn: (service) => this.spawn(service.record),
      socketPath: (id) => context.dir.serviceSocket(id),
      logPath: (id) => context.dir.serviceLog(id),
      peerPid: (peer) => context.addon.peerCredentials(socketFd(peer.socket)).pid,
      mountsOf: (id) => context.state.mounts.filter((mount) => mount.service === id),
      save: context.save,
      onEvent: events.onEvent,
      onMountLost: events.onMountLost,
      onEnd: (service) => {
        this.ended(service);
      },
      log: (level, service, message, details) => {
        context.log[level](
          { service: service.id, pool: service.record.pool ?? undefined, ...details },
          message,
        );
      },
    };
  }

  find(id: number): ManagedService | undefined {
    return this.services.get(id);
  }

  get(id: number): ManagedService {
    const service = this.services.get(id);
    if (!service) throw new PolyError('ESRCH', `service ${String(id)} is gone`);
    return service;
  }

  all(): ManagedService[] {
    return [...this.services.values()];
  }

  ofPool(pool: string): ManagedService | undefined {
    return this.all().find((service) => service.record.pool === pool && service.state !== 'stopping');
  }

  /** Starts a new service. It boots while its first mount is made. */
  create(pool: string | null, poll?: number): ManagedService {
    const { state } = this.context;
    const record: ServiceRecord = {
      id: state.nextService++,
      pool,
      ...(poll !== undefined && { poll }),
      pid: 0,
      startTime: '',
      startedAt: new Date().toISOString(),
      restarts: 0,
      nextInstance: 1,
      nextLibservice: 1,
      libservices: [],
      cgroup: null,
    };
    const service = this.add(record);
    service.start();
    return service;
  }

  private add(record: ServiceRecord): ManagedService {
    const service = new ManagedService(record, this.host);
    this.services.set(record.id, service);
    if (!this.context.state.services.includes(record)) this.context.state.services.push(record);
    return service;
  }

  /** Takes up the services of the state; resolves when the living ones are connected. */
  async adopt(): Promise<void> {
    const services = this.context.state.services.map((record) => this.add(record));
    await Promise.all(services.map((service) => service.adopt()));
  }

  private spawn({ id, poll }: ServiceRecord): ChildProcess {
    const { addon, keeper, dir } = this.context;
    const keeperFd = keeper.call((connection) => connection.scope(serviceScope(id)));
    // A dead predecessor may listen there still (ManagedService.checkGone), and would not answer.
    removeFile(dir.serviceSocket(id));
    removeFile(dir.attachSocket(id));
    try {
      return spawnService({ id, dir, keeperFd, poll });
    } finally {
      addon.closeFd(keeperFd);
    }
  }

  private ended(service: ManagedService): void {
    const { state, dir, keeper } = this.context;
    const { id } = service;
    this.services.delete(id);
    this.unkept.delete(id);
    state.services = state.services.filter((record) => record.id !== id);
    try {
      keeper.call((connection) => {
        connection.clear(serviceScope(id));
      });
    } catch (error) {
      this.context.log.warn({ service: id }, errorMessage(error));
    }
    removeFile(dir.serviceSocket(id));
    removeFile(dir.attachSocket(id));
    removeEmptyFile(dir.serviceLog(id));
    this.context.save();
    this.context.log.info({ service: id }, 'ended');
  }

  /**
   * Now and then, and when a keeper has died: services hold all that their keeper should, and hand it over where it does
   * not even have their pool memory, which goes first.
   */
  async restock(): Promise<void> {
    const poor = this.all().filter(
      (service) =>
        service.condition === 'running' && (this.unkept.has(service.id) || !this.isKept(service.id)),
    );
    await Promise.all(poor.map((service) => this.handOver(service)));
  }

  private async handOver(service: ManagedService): Promise<void> {
    const { dir, keeper, log } = this.context;
    if (this.handingOver.has(service.id)) return;
    this.handingOver.add(service.id);
    try {
      await service.handOver(dir.keeperSocket);
      this.unkept.delete(service.id);
      log.info({ service: service.id, keeper: keeper.status().pid }, 'the keeper has what the service needs');
    } catch (error) {
      // Told once: it is tried again and again.
      if (!this.unkept.has(service.id))
        log.error(
          { service: service.id },
          `not kept, should it die its mounts are lost: ${errorMessage(error)}`,
        );
      this.unkept.add(service.id);
    } finally {
      this.handingOver.delete(service.id);
    }
  }

  private isKept(id: number): boolean {
    try {
      return this.context.keeper.call((connection) => connection.list(`${serviceScope(id)}state`)).length > 0;
    } catch {
      // No keeper at all: the next one's start asks again.
      return true;
    }
  }

  /** Asks those that run whether they still answer. */
  checkHung(): void {
    for (const service of this.all()) service.checkHung();
  }

  checkGone(): void {
    for (const service of this.all()) service.checkGone();
  }

  info(): ServiceInfo[] {
    return this.all().map((service) => ({
      id: service.id,
      pid: service.record.pid,
      pool: service.record.pool,
      state: service.condition,
      restarts: service.record.restarts,
      startedAt: service.record.startedAt,
      ...(startTimeOf(service.record.pid) === service.record.startTime && usageOf(service.record.pid)),
      mounts: this.host.mountsOf(service.id).length,
    }));
  }

  /** Ends all services and what they serve. */
  async stopAll(): Promise<void> {
    await Promise.all(this.all().map((service) => service.stop()));
  }

  /** Lets all services live on without us. */
  release(): void {
    for (const service of this.all()) service.release();
  }
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // ENOENT: never made.
  }
}

/** A log with something in it is kept for who wants to know why. */
function removeEmptyFile(path: string): void {
  try {
    if (statSync(path).size === 0) unlinkSync(path);
  } catch {
    // ENOENT.
  }
}
