/**
 * One filesystem service as polyd sees it: its process, the connection to it, its death and its successor.
 *
 * The record (server/state.ts) says what the service should serve; `applied` what this process was told. A successor
 * gets everything of the record again and takes it up from the keeper: same id, same fds, same pool memory.
 */
import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { joinOwnGroup, removeGroup } from './cgroup.ts';
import { errorCode, errorMessage, PolyError } from './errors.ts';
import { allowsOther } from './mount_request.ts';
import { LEAVE_MS, type InstanceSpec, type ServiceEvent } from './native.ts';
import { parseSettings } from './options.ts';
import { isAlive, sendSignal, startTimeOf, waitGone } from './process.ts';
import { serviceEventSchema, type ServiceMethods, type ServiceState } from './protocol.ts';
import { connectRpc, type RpcPeer } from './rpc.ts';
import type { LibserviceRecord, MountRecord, ServiceRecord } from './state.ts';

/**
 * Back-off: this many deaths within this time are answered by a restart at once, further ones after a delay.
 * POLY_RESTART_BURST sets the number, for tests that kill more often than programs crash.
 */
const STORM_DEATHS = Number(process.env['POLY_RESTART_BURST'] ?? 5);
const STORM_WINDOW_MS = 10_000;
const STORM_DELAY_MS = 1000;
/** A service without mounts that dies this often before it ever answered is given up. */
const HOPELESS_DEATHS = 3;
const CONNECT_STEP_MS = 5;
/** How long a living process may take until its socket answers. */
const CONNECT_TIMEOUT_MS = 20_000;
const CALL_TIMEOUT_MS = 15_000;
/** A process that listens answers at once, unless its JavaScript is stuck: then it is replaced. */
const HANDSHAKE_TIMEOUT_MS = 3000;
/** A running service that has owed an answer for so long hangs. */
const HUNG_MS = 4000;

export type ServicePeer = RpcPeer<ServiceMethods>;

/** What a service needs of polyd around it. */
export interface ServiceHost {
  /** Starts the process with a fresh scoped keeper connection. */
  spawn(service: ManagedService): ChildProcess;
  socketPath(id: number): string;
  logPath(id: number): string;
  /** Pid at the other end of the connection, as the kernel has it. */
  peerPid(peer: ServicePeer): number;
  mountsOf(service: number): MountRecord[];
  /** The record changed. */
  save(): void;
  onEvent(service: ManagedService, event: ServiceEvent): void;
  /** A successor could not take up this mount. */
  onMountLost(service: ManagedService, mount: MountRecord, error: unknown): void;
  /** Ended for good: stopped, or given up. */
  onEnd(service: ManagedService): void;
  log(level: 'info' | 'warn' | 'error', service: ManagedService, message: string, details?: object): void;
}

export function instanceSpec(mount: MountRecord): InstanceSpec {
  return {
    id: mount.instance,
    libservice: mount.libservice,
    subdirectory: mount.subdirectory,
    readOnly: mount.readOnly,
    device: mount.device,
    mountId: mount.mountId,
    allowOther: allowsOther(parseSettings(mount.options)),
    ...(mount.attrTimeout !== undefined && { attrTimeout: mount.attrTimeout }),
    ...(mount.entryTimeout !== undefined && { entryTimeout: mount.entryTimeout }),
  };
}

/** Asks a service to end. As long as it answers it may take the time that its backends take. */
async function farewell(peer: ServicePeer): Promise<void> {
  const over = (): boolean => true;
  const asked = peer.request('stop', {}, LEAVE_MS).then(over, over);
  try {
    for (let wait = 5; !(await Promise.race([asked, sleep(wait, false)])); wait = Math.min(2 * wait, 250)) {
      await peer.request('ping', {}, 2000);
    }
  } catch {
    // It hangs, or has ended.
  }
}

export class ManagedService {
  readonly record: ServiceRecord;
  /** Without regard to whether it answers: `condition` tells. */
  state: Exclude<ServiceState, 'hung'> = 'starting';
  private readonly host: ServiceHost;
  private peer: ServicePeer | undefined;
  private applied = { libservices: new Set<number>(), instances: new Set<number>() };
  /** Counts processes of this service; whatever belongs to an earlier one is ignored. */
  private incarnation = 0;
  private everAnswered = false;
  /** When the question was put that it has not answered yet. */
  private askedAt: number | undefined;
  hung = false;
  private deaths: number[] = [];
  private waiters: { resolve: (peer: ServicePeer) => void; reject: (error: Error) => void }[] = [];
  /** Changes of what is served, one after the other. */
  private queue: Promise<unknown> = Promise.resolve();
  private stopped: Promise<void> | undefined;

  constructor(record: ServiceRecord, host: ServiceHost) {
    this.record = record;
    this.host = host;
  }

  get id(): number {
    return this.record.id;
  }

  get condition(): ServiceState {
    return this.hung && this.state === 'running' ? 'hung' : this.state;
  }

  /**
   * Called now and then: asks whether it still answers, one question at a time. One that hangs is left alone, as somebody
   * may have stopped it to look at it; its native threads may well serve on.
   */
  checkHung(): void {
    this.setHung(this.askedAt !== undefined && Date.now() - this.askedAt > HUNG_MS);
    const { peer } = this;
    if (!peer?.open || this.askedAt !== undefined) return;
    const asked = (this.askedAt = Date.now());
    // An error is an answer, too.
    void peer
      .request('ping', {})
      .catch(() => undefined)
      .then(() => {
        if (this.askedAt !== asked) return;
        this.askedAt = undefined;
        this.setHung(false);
      });
  }

  /**
   * Called often. Node tells of an end when all threads have ended; one of a killed process may wait in the kernel for an
   * answer that only the successor can give (process.ts), and its sockets stay open as long.
   */
  checkGone(): void {
    const { pid, startTime } = this.record;
    if (pid > 0 && !isAlive(pid, startTime)) this.died(this.incarnation, 'killed');
  }

  private setHung(hung: boolean): void {
    if (hung === this.hung) return;
    this.hung = hung;
    const { pid } = this.record;
    if (hung) this.host.log('error', this, `hangs: no answer for ${String(HUNG_MS / 1000)} s`, { pid });
    else if (pid !== 0) this.host.log('info', this, 'answers again', { pid });
  }

  // --- Start, death, successor ---------------------------------------------------------------------------------

  /** Starts a process; its predecessor must be dead. */
  start(): void {
    const incarnation = ++this.incarnation;
    this.leaveGroup();
    this.applied = { libservices: new Set(), instances: new Set() };
    let child: ChildProcess;
    try {
      child = this.host.spawn(this);
    } catch (error) {
      this.host.log('error', this, `cannot start: ${errorMessage(error)}`);
      setImmediate(() => {
        this.died(incarnation, errorMessage(error));
      });
      return;
    }
    this.record.pid = child.pid ?? 0;
    this.record.startTime = startTimeOf(this.record.pid);
    this.record.startedAt = new Date().toISOString();
    this.host.save();
    child.unref();
    child.once('error', (error) => {
      this.died(incarnation, errorMessage(error));
    });
    child.once('exit', (code, signal) => {
      this.died(incarnation, signal ?? `exit status ${String(code)}`);
    });
    void this.connect(incarnation);
  }

  /** Takes up a process that outlived polyd, or starts a successor where it did not. */
  async adopt(): Promise<void> {
    this.state = 'recovering';
    const incarnation = ++this.incarnation;
    const { pid, startTime } = this.record;
    try {
      await this.connectOnce(incarnation);
      return;
    } catch (error) {
      if (errorCode(error) === 'ETIMEDOUT') {
        await this.replace(incarnation, 'does not answer');
        return;
      }
      // Nobody listens: dead, or polyd was killed while it was starting.
    }
    if (isAlive(pid, startTime)) {
      await this.connect(incarnation, 3000);
      return;
    }
    this.died(incarnation, 'died while polyd was away');
  }

  /** Tries until the socket answers; a process that never does is killed. */
  private async connect(incarnation: number, timeoutMs = CONNECT_TIMEOUT_MS): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    while (incarnation === this.incarnation && Date.now() < deadline) {
      try {
        await this.connectOnce(incarnation);
        return;
      } catch (error) {
        const code = errorCode(error);
        if (code !== 'ENOENT' && code !== 'ECONNREFUSED' && code !== 'ECONNRESET') {
          this.host.log('error', this, `cannot connect: ${errorMessage(error)}`);
          break;
        }
      }
      await sleep(CONNECT_STEP_MS);
    }
    if (incarnation === this.incarnation) await this.replace(incarnation, 'does not answer');
  }

  private async connectOnce(incarnation: number): Promise<void> {
    const peer = await connectRpc<ServiceMethods>(this.host.socketPath(this.id), {
      onNotification: (method, params) => {
        // Not before the answers that came with it: their continuations are microtasks.
        setImmediate(() => {
          this.notified(incarnation, method, params);
        });
      },
      onClose: (closed) => {
        // Before it is ours the failed request tells.
        if (this.peer?.socket === closed.socket) void this.disconnected(incarnation);
      },
    });
    if (incarnation !== this.incarnation) {
      peer.end();
      return;
    }
    const pid = this.host.peerPid(peer);
    if (pid > 0 && pid !== this.record.pid) {
      this.record.pid = pid;
      this.record.startTime = startTimeOf(pid);
    }
    const contents = await peer.request('instances', {}, HANDSHAKE_TIMEOUT_MS);
    this.applied = {
      libservices: new Set(contents.libservices.map((libservice) => libservice.id)),
      instances: new Set(contents.instances.map((instance) => instance.id)),
    };
    this.peer = peer;
    this.everAnswered = true;
    void this.enterGroup();
    await this.enqueue(() => this.replay(peer));
    if (incarnation !== this.incarnation || !peer.open) return;
    if (this.state === 'stopping') return;
    this.state = 'running';
    this.host.save();
    this.host.log('info', this, 'running', { pid: this.record.pid });
    for (const waiter of this.waiters.splice(0)) waiter.resolve(peer);
  }

  /** Tells a process what the record wants of it. */
  private async replay(peer: ServicePeer): Promise<void> {
    const mounts = this.host.mountsOf(this.id);
    for (const stale of this.applied.instances) {
      if (mounts.some((mount) => mount.instance === stale)) continue;
      await peer.request('instance.remove', { id: stale }, CALL_TIMEOUT_MS).catch(() => undefined);
      this.applied.instances.delete(stale);
    }
    for (const mount of mounts) {
      const libservice = this.record.libservices.find((record) => record.id === mount.libservice);
      try {
        if (!libservice)
          throw new PolyError('EUCLEAN', `no libservice ${String(mount.libservice)} in the state`);
        await this.apply(peer, libservice, mount);
      } catch (error) {
        if (!peer.open) return;
        this.host.onMountLost(this, mount, error);
      }
    }
  }

  /** Each process once: an adopted one is in its group already. */
  private async enterGroup(): Promise<void> {
    if (this.record.cgroup !== null) return;
    const name = `poly-${String(process.pid)}-service-${String(this.id)}`;
    const incarnation = this.incarnation;
    const group = await joinOwnGroup(name, this.record.pid);
    if (incarnation === this.incarnation) {
      this.record.cgroup = group;
      this.host.save();
    } else if (group !== null) {
      removeGroup(group);
    }
  }

  private leaveGroup(): void {
    if (this.record.cgroup !== null) removeGroup(this.record.cgroup);
    this.record.cgroup = null;
  }

  private async disconnected(incarnation: number): Promise<void> {
    if (incarnation !== this.incarnation) return;
    this.peer = undefined;
    const { pid, startTime } = this.record;
    // A dying process closes its sockets a moment before it is gone.
    if (await waitGone(pid, startTime, 1000)) {
      this.died(incarnation, 'connection lost');
      return;
    }
    if (incarnation !== this.incarnation) return;
    this.host.log('warn', this, 'lost the connection to a living process, trying again');
    await this.connect(incarnation, 2000);
  }

  /** Kills a process that is alive but of no use; its successor takes over. */
  private async replace(incarnation: number, reason: string): Promise<void> {
    this.host.log('error', this, `${reason}: killing it`, { pid: this.record.pid });
    const { pid, startTime } = this.record;
    if (isAlive(pid, startTime)) sendSignal(pid, 'SIGKILL');
    await waitGone(pid, startTime, 10_000);
    this.died(incarnation, reason);
  }

  private died(incarnation: number, reason: string): void {
    if (incarnation !== this.incarnation) return;
    this.incarnation++;
    this.peer = undefined;
    this.askedAt = undefined;
    this.record.pid = 0;
    this.setHung(false);
    if (this.state === 'stopping') {
      this.finish(new PolyError('ESHUTDOWN', 'stopped'));
      return;
    }
    this.state = 'recovering';
    this.record.restarts++;
    const now = Date.now();
    this.deaths = [...this.deaths.filter((time) => now - time < STORM_WINDOW_MS), now];
    const mounts = this.host.mountsOf(this.id).length;
    this.host.log('error', this, `died (${reason})`, { mounts, restarts: this.record.restarts });
    if (!this.everAnswered && mounts === 0 && this.deaths.length >= HOPELESS_DEATHS) {
      this.finish(
        new PolyError('EIO', `service ${String(this.id)} does not start (${this.host.logPath(this.id)})`),
      );
      return;
    }
    const delay = this.deaths.length > STORM_DEATHS ? STORM_DELAY_MS : 0;
    if (delay > 0) this.host.log('warn', this, `dies too often, next start in ${String(delay)} ms`);
    const next = this.incarnation;
    setTimeout(() => {
      if (next === this.incarnation && this.state === 'recovering') this.start();
    }, delay);
  }

  private finish(error: PolyError): void {
    this.incarnation++;
    this.state = 'stopping';
    for (const waiter of this.waiters.splice(0)) waiter.reject(error);
    this.leaveGroup();
    this.host.onEnd(this);
  }

  private notified(incarnation: number, method: string, params: unknown): void {
    if (incarnation !== this.incarnation) return;
    const event = method === 'event' ? serviceEventSchema.safeParse(params) : undefined;
    if (event?.success) this.host.onEvent(this, event.data);
    else this.host.log('warn', this, `unreadable notification ${method}`);
  }

  // --- What it serves ------------------------------------------------------------------------------------------

  /** The connection, once the service runs and serves all its mounts. */
  ready(timeoutMs: number): Promise<ServicePeer> {
    if (this.hung)
      return Promise.reject(
        new PolyError('ETIMEDOUT', `service ${String(this.id)} hangs: it does not answer`),
      );
    if (this.state === 'running' && this.peer?.open) return Promise.resolve(this.peer);
    if (this.state === 'stopping')
      return Promise.reject(new PolyError('ESHUTDOWN', 'the service is stopping'));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(
          new PolyError(
            'ETIMEDOUT',
            `service ${String(this.id)} is not ready (${this.host.logPath(this.id)})`,
          ),
        );
      }, timeoutMs);
      this.waiters.push({
        resolve: (peer) => {
          clearTimeout(timer);
          resolve(peer);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
    });
  }

  /** A keeper without anything listens at `socket`. */
  async handOver(socket: string): Promise<void> {
    const peer = await this.ready(CALL_TIMEOUT_MS);
    await this.enqueue(() => peer.request('keeper.replaced', { socket }, CALL_TIMEOUT_MS));
  }

  /** Makes a libservice ahead of its first mount: a directory must be opened before a mount may cover it. */
  open(libservice: LibserviceRecord, timeoutMs: number): Promise<void> {
    return this.perform((peer) => this.applyLibservice(peer, libservice), timeoutMs);
  }

  /** Serves a new mount. */
  serve(libservice: LibserviceRecord, mount: MountRecord, timeoutMs: number): Promise<void> {
    return this.perform((peer) => this.apply(peer, libservice, mount), timeoutMs);
  }

  /** Does `work`; should the process die meanwhile, with its successor. */
  private async perform(work: (peer: ServicePeer) => Promise<void>, timeoutMs: number): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const peer = await this.ready(Math.max(1, deadline - Date.now()));
      try {
        await this.enqueue(() => work(peer));
        return;
      } catch (error) {
        if (errorCode(error) !== 'ECONNRESET' || Date.now() >= deadline) throw error;
      }
    }
  }

  private async applyLibservice(peer: ServicePeer, libservice: LibserviceRecord): Promise<void> {
    if (this.applied.libservices.has(libservice.id)) return;
    const { identity: _, ...spec } = libservice;
    const { source } = await peer.request('libservice.add', spec, CALL_TIMEOUT_MS);
    // Its successor shall have the same root, so that mounts' paths below it stay right.
    if (source !== undefined) {
      libservice.source = source;
      libservice.widen = false;
    }
    this.applied.libservices.add(libservice.id);
  }

  private async apply(peer: ServicePeer, libservice: LibserviceRecord, mount: MountRecord): Promise<void> {
    await this.applyLibservice(peer, libservice);
    if (this.applied.instances.has(mount.instance)) return;
    await peer.request('instance.add', instanceSpec(mount), CALL_TIMEOUT_MS);
    this.applied.instances.add(mount.instance);
  }

  /**
   * Stops serving an instance, and a libservice with it where given. A process that is dead need not be told. Resolves
   * when the backend has been left.
   */
  async drop(instance: number, libservice: number | undefined): Promise<void> {
    await this.enqueue(async () => {
      const peer = this.peer;
      if (!peer) return;
      if (this.applied.instances.delete(instance)) await this.tell(peer, 'instance.remove', { id: instance });
      if (libservice !== undefined && this.applied.libservices.delete(libservice)) {
        await this.tell(peer, 'libservice.remove', { id: libservice });
      }
    });
    // Not in the queue: what is served otherwise may change meanwhile.
    if (libservice !== undefined) {
      await this.peer?.request('libservice.left', { id: libservice }, LEAVE_MS).catch(() => undefined);
    }
  }

  private async tell(
    peer: ServicePeer,
    method: 'instance.remove' | 'libservice.remove',
    params: { id: number },
  ): Promise<void> {
    try {
      await peer.request(method, params, CALL_TIMEOUT_MS);
    } catch (error) {
      if (peer.open) this.host.log('warn', this, `${method}: ${errorMessage(error)}`, params);
    }
  }

  private enqueue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.queue.then(work);
    this.queue = result.catch(() => undefined);
    return result;
  }

  /** Ends the process for good; mounts it still has go with it. Resolves when it is gone. */
  stop(): Promise<void> {
    this.stopped ??= this.end();
    return this.stopped;
  }

  private async end(): Promise<void> {
    this.state = 'stopping';
    const incarnation = this.incarnation;
    const { pid, startTime } = this.record;
    if (this.peer) await farewell(this.peer);
    else if (pid > 0 && isAlive(pid, startTime)) sendSignal(pid, 'SIGTERM');
    if (!(await waitGone(pid, startTime, 2000))) {
      sendSignal(pid, 'SIGKILL');
      await waitGone(pid, startTime, 10_000);
    }
    this.died(incarnation, 'stopped');
  }

  /** Lets go of the process without ending it. */
  release(): void {
    this.incarnation++;
    this.peer?.end();
    for (const waiter of this.waiters.splice(0))
      waiter.reject(new PolyError('ESHUTDOWN', 'polyd is stopping'));
  }
}
