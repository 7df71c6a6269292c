/**
 * Mounting, for `poly mount` and mount.poly alike:
 *
 *   prepare (polyd picks the service) -> mount in the caller's mount namespace -> PUT the /dev/fuse fd into the keeper
 *   -> commit (the service serves it). What fails after prepare is undone: unmount, abort.
 *
 * Between mount and commit nobody answers on the mount point, so nothing here may touch a path at or below it.
 */
import { accessSync, constants, readFileSync, realpathSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { errorCode, PolyError } from '../errors.ts';
import { hasCode, native, type NativeKeeper } from '../native.ts';
import type { MountOptions, Outcome, PrepareResult } from '../protocol.ts';
import { runDir } from '../rundir.ts';
import { ANSWER_MS, connectOrStart, type Polyd } from './client.ts';
import { CliError, describe, exitCodes, mountFailure, usage } from './errors.ts';
import { fusermount } from './fusermount.ts';
import { Interruption } from './interrupt.ts';
import { isPoly, mountAt } from '../mountinfo.ts';

export interface MountRequest {
  /** For messages: "poly" or "mount.poly". */
  program: string;
  spec: string;
  directory: string;
  options: MountOptions;
  /** Mount namespace file to mount in, as mount -N. */
  namespace?: string | undefined;
}

export interface Mounted {
  path: string;
  outcome: Outcome;
  service: number;
  instance: number;
}

/** Mounts, starting the daemon if need be. Throws one clear line; nothing is left behind then. */
export async function mountFilesystem(request: MountRequest): Promise<Mounted> {
  const isRoot = process.geteuid?.() === 0;
  if (!isRoot) checkUser(request.options);
  if (request.namespace === undefined) mountPoint(request.directory);
  const spec = absoluteSpec(request.spec);
  const polyd = await connectOrStart(request.program);
  const interruption = new Interruption();
  try {
    // The keeper's socket and the addon are found in our own namespace; the mount point in the one asked for.
    const keeper = native().keeperConnect(runDir().keeperSocket);
    if (request.namespace !== undefined) enterNamespace(request.namespace);
    const path = mountPoint(request.directory);
    return await mountPrepared({ ...request, spec }, path, polyd, keeper, interruption);
  } catch (error) {
    if (errorCode(error) === 'EINTR')
      throw new CliError(exitCodes.interrupt, `${request.directory}: interrupted`);
    throw mountFailure(request.directory, error);
  } finally {
    interruption.end();
    polyd.end();
  }
}

async function mountPrepared(
  request: MountRequest,
  path: string,
  polyd: Polyd,
  keeper: NativeKeeper,
  interruption: Interruption,
): Promise<Mounted> {
  const { spec, options } = request;
  const prepared = await interruption.race(
    polyd.request('mount.prepare', { path, spec, options }, ANSWER_MS),
  );
  const mounted = { path, outcome: prepared.outcome, service: prepared.service, instance: prepared.instance };
  if (prepared.outcome === 'full-match') {
    await checkVisible(path, polyd);
    return mounted;
  }
  let isMounted = false;
  try {
    const fd = attach(path, prepared);
    isMounted = true;
    try {
      keeper.put(prepared.keeperName, [fd]);
    } finally {
      native().closeFd(fd);
    }
    const line = mountAt(path);
    if (!isPoly(line)) throw new PolyError('EIO', `${path}: mounted, but not found in /proc/self/mountinfo`);
    const { device, mountId } = line;
    const commit = polyd.request('mount.commit', { mount: prepared.mount, device, mountId }, ANSWER_MS);
    await interruption.race(commit);
  } catch (error) {
    await undo(path, isMounted, prepared, polyd);
    throw error;
  }
  return mounted;
}

/** Opens /dev/fuse and mounts it on `path`. */
function attach(path: string, prepared: PrepareResult): number {
  if (process.geteuid?.() !== 0) return attachAsUser(path, prepared.fusermountOptions);
  let fd: number;
  try {
    fd = native().openFuse();
  } catch (error) {
    const hint = errorCode(error) === 'ENOENT' ? ' (modprobe fuse)' : '';
    throw new CliError(exitCodes.system, `/dev/fuse: ${describe(error)}${hint}`, errorCode(error));
  }
  try {
    native().mountFuse(path, fd, prepared.source, prepared.flags, prepared.data);
    return fd;
  } catch (error) {
    native().closeFd(fd);
    if (errorCode(error) !== 'EPERM') throw error;
    throw new CliError(exitCodes.usage, `${path}: not permitted to mount (needs CAP_SYS_ADMIN)`, 'EPERM');
  }
}

function attachAsUser(path: string, options: string): number {
  try {
    return native().fusermountMount(path, options);
  } catch (error) {
    if (!hasCode(error)) throw error;
    // What fusermount3 itself said says more than the errno.
    const said = /fusermount3?: (?!.*fusermount3?: )(.*)/.exec(error.message)?.[1] ?? error.message;
    throw new PolyError(error.code, `${path}: fusermount3: ${said}`);
  }
}

async function undo(path: string, isMounted: boolean, prepared: PrepareResult, polyd: Polyd): Promise<void> {
  if (isMounted && isPoly(mountAt(path))) {
    try {
      if (process.geteuid?.() === 0) native().umount(path, { lazy: true });
      else fusermount(path, { lazy: true });
    } catch (error) {
      process.stderr.write(`poly: ${path}: half mounted, and cannot be unmounted: ${describe(error)}\n`);
    }
  }
  // The first error is the one to show; polyd aborts by itself when the connection closes.
  await polyd.request('mount.abort', { mount: prepared.mount }, ANSWER_MS).catch(() => undefined);
}

/** A full match that this namespace does not see was detached lazily, or belongs to another namespace. */
async function checkVisible(path: string, polyd: Polyd): Promise<void> {
  const there = await polyd.request('mount.find', { path }, ANSWER_MS);
  const line = mountAt(path);
  if (!there || (isPoly(line) && line.device === there.device)) return;
  const why = 'is mounted in another mount namespace, or was unmounted lazily and is still in use';
  throw new CliError(
    exitCodes.mount,
    `${path}: ${why} (give it up with: poly umount --force ${path})`,
    'EBUSY',
  );
}

/** The mount point as polyd and the kernel name it. */
export function mountPoint(directory: string): string {
  let path: string;
  try {
    path = realpathSync(directory);
    if (!statSync(path).isDirectory()) throw usage(`${directory}: not a directory`);
  } catch (error) {
    if (error instanceof CliError) throw error;
    const code = errorCode(error) ?? 'EIO';
    throw new CliError(
      code === 'ENOTCONN' ? exitCodes.mount : exitCodes.usage,
      `${directory}: ${describe(error)}`,
      code,
    );
  }
  return path;
}

/** `local:./data` means something to the shell's user only; polyd wants the resolved directory. */
export function absoluteSpec(spec: string): string {
  if (!spec.startsWith('local:')) return spec;
  const directory = spec.slice('local:'.length);
  if (directory === '') throw usage(`${spec}: names no directory`);
  const isPlain = directory.startsWith('/') && !directory.split('/').includes('..');
  if (isPlain) return spec;
  try {
    return `local:${realpathSync(resolve(directory))}`;
  } catch (error) {
    throw usage(`${spec}: ${describe(error)}`);
  }
}

function enterNamespace(namespace: string): void {
  try {
    native().enterMountNamespace(namespace);
  } catch (error) {
    throw new CliError(exitCodes.usage, `mount namespace ${namespace}: ${describe(error)}`, errorCode(error));
  }
}

/** What an ordinary user needs for fusermount3, in words better than fusermount3's. */
function checkUser(options: MountOptions): void {
  if (options['allow_other'] === true && !userMayAllowOther()) {
    throw usage("option allow_other: needs the line 'user_allow_other' in /etc/fuse.conf for ordinary users");
  }
  const path = (process.env['PATH'] ?? '').split(':').concat('/usr/bin', '/bin');
  if (path.some((directory) => directory !== '' && isExecutable(`${directory}/fusermount3`))) return;
  throw new CliError(
    exitCodes.system,
    'fusermount3: not found; ordinary users need it to mount (apt install fuse3)',
  );
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function userMayAllowOther(): boolean {
  try {
    return /^\s*user_allow_other\s*$/m.test(readFileSync('/etc/fuse.conf', 'utf8'));
  } catch {
    return false;
  }
}
