/**
 * The service host: the JavaScript side of a filesystem service process.
 *
 *   node service.js ID SOCKET ATTACH-SOCKET [POLL-CPU]     (descriptor 3: scoped keeper connection)
 *
 * polyd starts it, connects to SOCKET and tells it which libservices and instances to serve; everything per request is
 * native. Programs attach at ATTACH-SOCKET, which is native, too. It outlives polyd: events wait until polyd is back. Imports are few on purpose: starting fast is a goal. Its
 * messages come from polyd alone (same uid, the kernel vouches), so a look at their shape is enough.
 */
import { unlinkSync } from 'node:fs';
import { errorMessage, PolyError } from './errors.ts';
import {
  native,
  type InstanceSpec,
  type LibserviceSpec,
  type NativeService,
  type ServiceEvent,
} from './native.ts';
import type { ServiceContents } from './protocol.ts';
import { listenRpc, socketFd, UnknownMethod, type RpcPeer } from './rpc.ts';

const KEEPER_FD = 3;
/** Events of no instance that are remembered while polyd is away; those of instances are few by nature. */
const MAX_QUEUED_ERRORS = 100;

type Params = Record<string, unknown>;

/** What the names of its descriptors begin with. */
let scope = '';
const libservices = new Map<number, LibserviceSpec>();
const instances = new Map<number, InstanceSpec>();
/** Libservices that have been removed and whose backends are still being left. */
const leaving = new Map<number, Promise<void>>();
let stopped: Promise<void> | undefined;
let queue: ServiceEvent[] = [];
let polyd: RpcPeer | undefined;

function report(event: ServiceEvent): void {
  if (polyd?.open) {
    polyd.notify('event', event);
    return;
  }
  const errors = queue.filter((queued) => queued.type === 'error').length;
  if (event.type !== 'error' || errors < MAX_QUEUED_ERRORS) queue.push(event);
}

function number(params: Params, key: string): number {
  const value = params[key];
  if (typeof value !== 'number' || !Number.isInteger(value))
    throw new PolyError('EINVAL', `${key}: not an integer`);
  return value;
}

/** Waits until backends have been left, and tells what may be lost. */
async function leave(left: Promise<string[]>): Promise<void> {
  for (const message of await left) report({ type: 'error', message });
}

/** Ends the process after the answer. Nothing that is being left is cut off. */
async function stop(service: NativeService): Promise<void> {
  await leave(service.stop());
  await Promise.all(leaving.values());
  setImmediate(() => process.exit(0));
}

const methods: Record<string, (service: NativeService, params: Params) => unknown> = {
  'libservice.add': (service, params) => {
    const id = number(params, 'id');
    const asked = params as unknown as LibserviceSpec;
    const source = service.addLibservice(asked);
    const spec = source === undefined ? asked : { ...asked, source, widen: false };
    libservices.set(id, spec);
    return source === undefined ? {} : { source };
  },
  'libservice.remove': (service, params) => {
    const id = number(params, 'id');
    const left = leave(service.removeLibservice(id));
    leaving.set(id, left);
    void left.finally(() => leaving.delete(id));
    libservices.delete(id);
  },
  'libservice.left': (_, params) => leaving.get(number(params, 'id')),
  'instance.add': (service, params) => {
    const id = number(params, 'id');
    const spec = params as unknown as InstanceSpec;
    service.addInstance(spec);
    instances.set(id, spec);
  },
  'instance.remove': (service, params) => {
    const id = number(params, 'id');
    instances.delete(id);
    service.removeInstance(id);
  },
  'instance.readonly': (service, params) => {
    const id = number(params, 'id');
    const readOnly = params['readOnly'] === true;
    service.setReadOnly(id, readOnly);
    const spec = instances.get(id);
    if (spec) instances.set(id, { ...spec, readOnly });
  },
  'keeper.replaced': (service, params) => {
    const keeper = native().keeperConnect(String(params['socket']));
    try {
      service.handOver(keeper.scope(scope));
    } finally {
      keeper.close();
    }
  },
  ping: () => ({}),
  'instance.release': (service, params) => ({ answered: service.release(number(params, 'id')) }),
  instances: (): ServiceContents => ({
    libservices: [...libservices.values()],
    instances: [...instances.values()],
  }),
  stats: (service) => service.stats(),
  stop: (service) => (stopped ??= stop(service)),
};

function handle(service: NativeService, method: string, params: unknown): unknown {
  const run = Object.hasOwn(methods, method) ? methods[method] : undefined;
  if (!run) throw new UnknownMethod(method);
  if (typeof params !== 'object' || params === null)
    throw new PolyError('EINVAL', `${method}: parameters missing`);
  return run(service, params as Params) ?? {};
}

/** polyd is back (or a second one: the newest wins): hands over the events that waited. */
function welcome(peer: RpcPeer): void {
  polyd?.end();
  polyd = peer;
  const waiting = queue;
  queue = [];
  for (const event of waiting) peer.notify('event', event);
}

async function main(): Promise<void> {
  const [id, socketPath, attachSocket, poll] = process.argv.slice(2);
  if (id === undefined || socketPath === undefined || attachSocket === undefined)
    throw new PolyError('EUSAGE', 'usage: service.js ID SOCKET ATTACH-SOCKET [POLL-CPU]');
  process.title = `poly-service ${id}`;
  const addon = native();
  scope = `service-${id}/`;
  const service = addon.createService({
    keeperFd: KEEPER_FD,
    scope,
    attachSocket,
    ...(poll !== undefined && { pollCpu: Number(poll) }),
    onEvent: report,
  });
  // A predecessor's: polyd has seen it dead before it started us.
  unlinkIfThere(socketPath);
  await listenRpc(socketPath, {
    maxConnections: 8,
    accept: (socket) => {
      const { uid } = addon.peerCredentials(socketFd(socket));
      if (uid !== process.geteuid?.() && uid !== 0)
        throw new PolyError('EPERM', 'only polyd may connect here');
      return { onRequest: (method, params) => handle(service, method, params) };
    },
    onPeer: welcome,
  });
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // ENOENT at first start.
  }
}

main().catch((error: unknown) => {
  console.error(`poly-service: ${errorMessage(error)}`);
  process.exit(1);
});
