/**
 * The control protocol: every method polyd answers (and every method a service answers), with its types.
 *
 * Messages are JSON-RPC 2.0, one per line, over a unix socket in the run directory (server/rpc.ts). polyd
 * validates parameters with the zod schemas below; results are plain interfaces. Programs that only call should
 * use `import type` from here, so that zod is not loaded.
 *
 * Mounting, as the client sees it:
 *   1. `mount.prepare` {path, spec, options}   polyd picks the service and the instance, and starts the service;
 *   2. the client opens /dev/fuse, mounts it in its own mount namespace with `flags`, `source` and `data` (or through
 *      fusermount3 with `fusermountOptions`), and PUTs the fd into the keeper as `keeperName`. It touches nothing
 *      below the mount point: nobody answers yet;
 *   3. `mount.commit` {mount, device, mountId}  the service serves the fd, the mount is in the mount table.
 * A failure between 1 and 3: unmount, then `mount.abort`. All three go over one connection: a prepared mount whose
 * connection closes is aborted, as is one that is not committed within 30 s.
 */
import { z } from 'zod';
import type {
  ClientStats,
  InstanceSpec,
  InstanceStats,
  LibserviceSpec,
  MountFlags,
  ServiceEvent,
  ServiceStats,
} from './native.ts';

// --- Parameters ------------------------------------------------------------------------------------------------

/** PATH_MAX less the terminating NUL. */
const MAX_PATH = 4095;

/** An absolute path in normal form: no `.`, `..`, `//` or trailing slash. Clients send what realpath(3) gave them. */
const absolutePath = z
  .string()
  .max(MAX_PATH, 'path too long')
  .regex(/^\/(?!\/)/, 'path must be absolute')
  .refine((path) => !path.includes('\0'), 'path contains a NUL byte')
  .refine(
    (path) => path === '/' || !/\/(\.{0,2}\/|\.{0,2}$)/.test(path),
    'path must be in normal form (no "//", ".", ".." or trailing "/")',
  );

const options = z.record(z.string().min(1).max(255), z.union([z.string().max(MAX_PATH), z.literal(true)]));
const id = z.int().min(1).max(0x7fffffff);
const timeout = z.int().min(0).max(600_000);

export const schemas = {
  status: z.strictObject({}),
  'mount.prepare': z.strictObject({
    path: absolutePath,
    /** "local:/srv/data", "memory", "memory:name", or a configured "name" or "name/sub". */
    spec: z.string().min(1).max(MAX_PATH),
    options,
    /** What mountinfo shows as the source; default: the spec. */
    source: z.string().min(1).max(MAX_PATH).optional(),
  }),
  'mount.commit': z.strictObject({
    mount: id,
    /** st_dev of the new mount, "major:minor" from /proc/self/mountinfo. */
    device: z.string().regex(/^\d{1,10}:\d{1,10}$/, 'device must be "major:minor"'),
    /** Mount id, the first field of its mountinfo line. */
    mountId: z.int().min(0).max(0x7fffffff),
  }),
  'mount.abort': z.strictObject({ mount: id }),
  'mount.list': z.strictObject({}),
  'mount.find': z.strictObject({ path: absolutePath }),
  /** Only ro/rw reach the service; `flags` of the answer are what the client then gives to remount. */
  'mount.remount': z.strictObject({ path: absolutePath, options }),
  /** Resolves when the mount is gone (at once when there is none); ETIMEDOUT otherwise. */
  'mount.gone': z.strictObject({ path: absolutePath, timeoutMs: timeout }),
  /** Drops a mount from polyd whatever its state is, if there is one; its connection is aborted. */
  'mount.forget': z.strictObject({ path: absolutePath }),
  /** Answers the calls that wait for a backend, and all until it answers again, with EIO. */
  'mount.release': z.strictObject({ path: absolutePath }),
  stats: z.strictObject({ path: absolutePath.optional() }),
  /** "unmount": the client has unmounted everything (EBUSY otherwise); services and keeper end too. */
  stop: z.strictObject({ mounts: z.enum(['unmount', 'keep']) }),
} as const;

export type Method = keyof typeof schemas;
export type Params<M extends Method> = z.input<(typeof schemas)[M]>;
export type MountOptions = Record<string, string | true>;

// --- Results ---------------------------------------------------------------------------------------------------

/**
 * "starting": not yet connected for the first time. "recovering": died, its successor is on the way. "hung": the process
 * lives, but has not answered polyd for some seconds (stopped by a signal, or its JavaScript spins).
 */
export type ServiceState = 'starting' | 'running' | 'recovering' | 'hung' | 'stopping';

export interface ServiceInfo {
  id: number;
  pid: number;
  pool: string | null;
  state: ServiceState;
  restarts: number;
  /** ISO 8601. */
  startedAt: string;
  /** Resident bytes and threads, when /proc told. */
  rss?: number;
  threads?: number;
  mounts: number;
}

export interface KeeperStatus {
  /** 0: it has died, and another one is being started. A service that dies meanwhile loses its mounts. */
  pid: number;
  fds: number;
  names: number;
  /** Descriptors that it could not take. */
  dropped: number;
  /** How often this polyd has seen it die and started another. */
  restarts: number;
}

export interface StatusResult {
  pid: number;
  version: string;
  startedAt: string;
  runDir: string;
  keeper: KeeperStatus;
  services: ServiceInfo[];
  table: { entries: number; capacity: number };
}

/**
 * full-match: this spec is mounted there already, same instance, nothing to mount. shared: a new instance in an
 * existing service. new-service: a service of its own.
 */
export type Outcome = 'full-match' | 'shared' | 'new-service';

export interface PrepareResult {
  mount: number;
  outcome: Outcome;
  service: number;
  instance: number;
  /** Under which name the mounted /dev/fuse fd goes into the keeper (unscoped connection). */
  keeperName: string;
  source: string;
  flags: MountFlags;
  /** For native().mountFuse. */
  data: string;
  /** For native().fusermountMount. */
  fusermountOptions: string;
}

/** "failed": the service could not take the mount up (again); unmount it. "hung", "recovering": as its service. */
export type MountState = 'mounted' | 'recovering' | 'hung' | 'failed';

export interface MountInfo {
  path: string;
  spec: string;
  /** Libservice type: "memory", "local" or "ceph". */
  type: string;
  source: string;
  service: number;
  instance: number;
  pool: string | null;
  outcome: Outcome;
  /** Paths of other mounts that use the same libservice. */
  shares: string[];
  options: MountOptions;
  readOnly: boolean;
  state: MountState;
  device: string;
  mountId: number;
  /** ISO 8601. */
  since: string;
}

export interface RemountResult {
  flags: MountFlags;
}

export interface StatsResult {
  services: (Omit<ServiceStats, 'instances' | 'clients'> & {
    service: number;
    pool: string | null;
    pid: number;
    instances: (InstanceStats & { path: string })[];
    /** Of the instances above. `command` is what the process calls itself: anything. */
    clients: (ClientStats & { command: string })[];
  })[];
  /** Services that do not answer; asked for a mount of one of them, the whole request fails. */
  silent: number[];
}

type Empty = Record<string, never>;

interface Results {
  status: StatusResult;
  'mount.prepare': PrepareResult;
  'mount.commit': Empty;
  'mount.abort': Empty;
  'mount.list': MountInfo[];
  'mount.find': MountInfo | null;
  'mount.remount': RemountResult;
  'mount.gone': Empty;
  'mount.forget': Empty;
  'mount.release': { answered: number };
  stats: StatsResult;
  stop: Empty;
}

/** polyd's methods, for `RpcPeer<PolydMethods>`. */
export type PolydMethods = { [M in Method]: { params: Params<M>; result: Results[M] } };

// --- Service host ----------------------------------------------------------------------------------------------

/** What a service process runs at the moment, as it was told. */
export interface ServiceContents {
  libservices: LibserviceSpec[];
  instances: InstanceSpec[];
}

/** A service's methods; only polyd calls them. */
export type ServiceMethods = {
  /** `source`: of the directory that was asked for, or one above it (LibserviceSpec.widen). */
  'libservice.add': { params: LibserviceSpec; result: { source?: string } };
  /** Its backend is left in the background. */
  'libservice.remove': { params: { id: number }; result: Empty };
  /** Answers when the backend of a libservice that was removed has been left: within LEAVE_MS. */
  'libservice.left': { params: { id: number }; result: Empty };
  'instance.add': { params: InstanceSpec; result: Empty };
  'instance.remove': { params: { id: number }; result: Empty };
  'instance.release': { params: { id: number }; result: { answered: number } };
  'instance.readonly': { params: { id: number; readOnly: boolean }; result: Empty };
  instances: { params: Empty; result: ServiceContents };
  /** The keeper that listens there took the place of one that died: everything that must be kept goes to it. */
  'keeper.replaced': { params: { socket: string }; result: Empty };
  ping: { params: Empty; result: Empty };
  stats: { params: Empty; result: ServiceStats };
  /** Answers when all backends have been left, and ends: within LEAVE_MS. */
  stop: { params: Empty; result: Empty };
};

/** Notification of a service to polyd: method "event". */
export const serviceEventSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('instance-ended'),
    instance: id,
    reason: z.enum(['unmounted', 'error']),
    message: z.string(),
  }),
  z.object({ type: z.literal('instance-ready'), instance: id }),
  z.object({ type: z.literal('error'), message: z.string() }),
]) satisfies z.ZodType<ServiceEvent>;
