/**
 * The native addon's face: everything TypeScript may ask of C++.
 *
 * One typed loader, no logic. Functions throw `NativeError` (an Error whose `code` is the errno name and whose
 * `syscall` names the call that failed). Nothing here is called per filesystem request.
 */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** Error thrown by every native function: `code` is the errno name ("ENOENT"), `errno` its number. */
export interface NativeError extends Error {
  code: string;
  errno: number;
  syscall: string;
}

/** Credentials the kernel vouches for (SO_PEERCRED, unix(7)). */
export interface PeerCredentials {
  pid: number;
  uid: number;
  gid: number;
}

/** Mount flags of mount(2) by their mount(8) names; an absent flag is off. */
export interface MountFlags {
  ro?: boolean;
  nosuid?: boolean;
  nodev?: boolean;
  noexec?: boolean;
  noatime?: boolean;
  nodiratime?: boolean;
  relatime?: boolean;
  strictatime?: boolean;
  sync?: boolean;
  dirsync?: boolean;
}

/** One line of a service's statistics. Latencies in nanoseconds; histogram bucket i counts [2^i, 2^(i+1)) ns. */
export interface OpStats {
  op: string;
  count: number;
  errors: number;
  totalNs: number;
  histogram: number[];
}

export interface InstanceStats {
  instance: number;
  nodes: number;
  openFiles: number;
  /** Open files for which the libservice could lend a host fd; nothing borrows yet. */
  lendableFiles: number;
  locks: number;
  parkedLockWaits: number;
  /** For how long a backend has not answered; absent: it answers. `released`: calls fail at once until it does. */
  silentSeconds?: number;
  released?: boolean;
  ops: OpStats[];
}

/** A process that is attached to the service by the fast path. */
export interface ClientStats {
  /** The service's number of it. */
  client: number;
  pid: number;
  uid: number;
  openFiles: number;
  /** Calls that the service has answered for it, and those among them it has left to the kernel. */
  calls: number;
  declined: number;
  /** Instances it has shown to reach through their mounts. */
  instances?: number[];
  /** Of its calls, as in OpStats. */
  totalNs?: number;
  histogram?: number[];
}

export interface ServiceStats {
  threads: number;
  threadsBusy: number;
  requests: number;
  instances: InstanceStats[];
  clients: ClientStats[];
}

export type LibserviceType = 'memory' | 'local' | 'ceph';

/** Of tmpfs(5)'s option `huge`. */
export type HugePolicy = 'never' | 'always' | 'within_size' | 'advise';

/** What a libservice is built from. `id` is unique within the service and keeps its meaning across restarts. */
export interface LibserviceSpec {
  id: number;
  type: LibserviceType;
  /**
   * local: the directory that becomes the root (opened by the service, the fd then kept by the keeper). ceph: the
   * directory of the Ceph filesystem.
   */
  source?: string;
  /** memory: bytes (0 = half of RAM, as tmpfs), inodes (0 = tmpfs default), mode/uid/gid of the root directory. */
  size?: number;
  inodes?: number;
  mode?: number;
  uid?: number;
  gid?: number;
  /** memory: large folios, as tmpfs(5) understands it. */
  huge?: HugePolicy;
  /** ceph: what the client is made with; `uuid` names its session, for a successor to take its place. */
  uuid?: string;
  /** The root is to be the highest directory above `source` that the user may mount, for others to share the client. */
  widen?: boolean;
  user?: string;
  conf?: string;
  keyring?: string;
  fs?: string;
  write?: 'through' | 'back';
  cache?: number;
  dirty?: number;
  opTimeout?: number;
}

/** A filesystem instance: one FUSE connection over (a subdirectory of) one libservice. */
export interface InstanceSpec {
  id: number;
  libservice: number;
  /** Path below the libservice's root; "" or absent is the root itself. Resolved beneath the root (openat2). */
  subdirectory?: string;
  readOnly?: boolean;
  /** Seconds the kernel may trust attributes and names; default 1. */
  attrTimeout?: number;
  entryTimeout?: number;
  /** Of its mount, "major:minor" and statx's stx_mnt_id: how fast-path clients prove that they reach it. */
  device?: string;
  mountId?: number;
  /** FUSE's option of that name: without it the mount is for who has mounted it, whatever its modes say. */
  allowOther?: boolean;
}

/** Reported by the service's native side to its JavaScript side. */
export type ServiceEvent =
  | { type: 'instance-ended'; instance: number; reason: 'unmounted' | 'error'; message: string }
  | { type: 'instance-ready'; instance: number }
  | { type: 'error'; message: string };

/** What backends may take to be left with everything written back, and a little more (libservices/ceph/client.cpp). */
export const LEAVE_MS = 70_000;

/**
 * The filesystem service inside this process. Constructed once. It finds its file descriptors with the keeper through
 * `keeperFd` (a scoped keeper connection), each below its scope: "state" (pool memory; created and put there at first start), "fuse/<instance>/0"
 * (the mounted /dev/fuse, put there by whoever mounted; clones "fuse/<instance>/<n>" are made and put by the service),
 * "root/<libservice>" (root directory fd) and "park/<token>" (open-but-unlinked files).
 */
export interface NativeService {
  /** Creates or, where the keeper has "root/<id>", takes up a libservice again. Of ceph: the root it has got. */
  addLibservice(spec: LibserviceSpec): string | undefined;
  /**
   * Drops a libservice no instance uses, and its root fd (a memory libservice's contents go with it). Resolves when its
   * backend has been left, within LEAVE_MS, with a line about what may be lost, if anything.
   */
  removeLibservice(id: number): Promise<string[]>;
  /**
   * Serves the FUSE connection "fuse/<id>/0". When pool memory already knows the instance (a predecessor served it), its
   * negotiated INIT state is restored and unanswered requests are asked for again; otherwise INIT is answered.
   */
  addInstance(spec: InstanceSpec): void;
  /** Stops serving; the connection is aborted if still mounted. Its fds are dropped from the keeper. */
  removeInstance(id: number): void;
  setReadOnly(id: number, readOnly: boolean): void;
  /** Gives everything that must outlive the service to the keeper at `keeperFd`, which took a dead one's place. */
  handOver(keeperFd: number): void;
  /** Answers the calls of an instance whose backend does not with EIO; how many there were. */
  release(id: number): number;
  stats(): ServiceStats;
  /**
   * Ends threads; mounts stay alive with the keeper unless removed before. Resolves as removeLibservice does, when all
   * backends have been left.
   */
  stop(): Promise<string[]>;
}

export interface MountTableEntry {
  path: string;
  service: number;
  instance: number;
  readOnly: boolean;
  /** "kernel": a foreign mount below ours; lookups there answer "not ours". */
  kernel: boolean;
  /** st_dev of the FUSE mount as "major:minor", "0:0" when unknown. */
  device: string;
  mountId: number;
}

export interface MountTableMatch {
  service: number;
  instance: number;
  readOnly: boolean;
  kernel: boolean;
  /** The mount path that matched, and whether it is the whole path asked for. */
  path: string;
  exact: boolean;
}

/** The shared mount table (fastpath/mount_table.hpp). */
export interface NativeMountTable {
  /** -1 for one that is only read. */
  readonly fd: number;
  insert(entry: MountTableEntry): void;
  update(entry: MountTableEntry): void;
  remove(path: string): void;
  lookup(path: string): MountTableMatch | null;
  entries(): MountTableEntry[];
  /** Grows with every change. */
  readonly generation: number;
  /**
   * Makes the kernel entries what /proc/self/mountinfo says, and starts a new generation. How many there are, and how
   * many mounts are out of lookups because the table has no room for what is below them.
   */
  followMounts(): { entries: number; hidden: number };
}

/** Tells of changes to this process's mounts until it is closed. Does not keep the process alive. */
export interface NativeMountWatch {
  close(): void;
}

/** Connection to poly-keeper (native/keeper). Calls are synchronous and short. */
export interface NativeKeeper {
  put(name: string, fds: number[]): void;
  /** All names with the prefix, with duplicates of their fds (the caller closes them). */
  get(prefix: string): { name: string; fds: number[] }[];
  list(prefix: string): { name: string; fds: number }[];
  drop(name: string): void;
  clear(prefix: string): void;
  /** fd of a new connection confined to names that begin with `prefix`; `most` fds at most (0: any). */
  scope(prefix: string, most?: number): number;
  ping(): { pid: number; fds: number; names: number; dropped: number };
  close(): void;
}

export interface NativeAddon {
  version(): { abi: number; ops: string[] };
  peerCredentials(fd: number): PeerCredentials;
  closeFd(fd: number): void;
  /** Measures, in the background, how data are best copied on this machine, unless that is known. */
  calibrateCopy(): void;
  /** sd_notify(3): false where NOTIFY_SOCKET is not set. `fds` go with FDSTORE=1. */
  sdNotify(message: string, fds?: number[]): boolean;
  openFuse(): number;
  /** Whether the connection of this mounted /dev/fuse fd is over: unmounted everywhere, or aborted. */
  fuseEnded(fd: number): boolean;
  /** mount(2) of type fuse.poly on `target` in this process's mount namespace; needs CAP_SYS_ADMIN. */
  mountFuse(target: string, fuseFd: number, source: string, flags: MountFlags, data: string): void;
  /** mount(2) MS_REMOUNT with these flags. */
  remount(target: string, flags: MountFlags): void;
  umount(target: string, options: { lazy?: boolean; force?: boolean }): void;
  /** Ordinary users: runs fusermount3 -o OPTIONS TARGET and returns the /dev/fuse fd it passes back. */
  fusermountMount(target: string, options: string): number;
  /** setns(2) into a mount namespace file (mount -N); the process must be single-purpose afterwards. */
  enterMountNamespace(path: string): void;
  keeperConnect(path: string): NativeKeeper;
  mountTableCreate(capacity: number): NativeMountTable;
  mountTableAttach(fd: number, writable: boolean): NativeMountTable;
  /** The table, to read, as the keeper hands it out on attach/table.sock; null when it has none. */
  mountTableFetch(socket: string): NativeMountTable | null;
  /** Calls back after something was mounted or unmounted in this process's mount namespace; once for a burst. */
  watchMounts(changed: () => void): NativeMountWatch;
  /**
   * Becomes the program named by the last `words` words of this process's command line (execvp(3)), with these
   * environment variables set. Never returns: throws when there is no such program or it cannot be run.
   */
  exec(words: number, variables: Record<string, string>): never;
  /** Whether the file has capabilities, capabilities(7). */
  fileCapabilities(path: string): boolean;
  createService(options: {
    keeperFd: number;
    /** What the service's names with the keeper begin with: "service-3/". */
    scope: string;
    /** Where processes attach to it by the fast path; "" or absent: nowhere. */
    attachSocket?: string;
    /** Upper bound of serving threads; default 64. */
    maxThreads?: number;
    /** The CPU that the fast path polls on while programs are attached; none if absent. */
    pollCpu?: number;
    onEvent: (event: ServiceEvent) => void;
  }): NativeService;
}

const require = createRequire(import.meta.url);

/** Path of the addon built by scripts/build.sh; POLY_ADDON overrides it. */
export const addonPath =
  process.env['POLY_ADDON'] ??
  fileURLToPath(new URL('../../build/native/native/polytropon.node', import.meta.url));

let loaded: NativeAddon | undefined;

/** Loads the addon at first use, so that `poly --help` needs no native code. */
export function native(): NativeAddon {
  loaded ??= require(addonPath) as NativeAddon;
  return loaded;
}

/** True for errors with an errno `code`, as native functions and node:fs throw them. */
export function hasCode(error: unknown): error is NativeError {
  return error instanceof Error && typeof (error as Partial<NativeError>).code === 'string';
}
