/**
 * Unmounting, for `poly umount`, `poly stop` and umount.poly alike: umount(2) in the caller's mount namespace (or
 * fusermount3 -u), then wait until polyd has seen the end of the connection. Works without the daemon, too.
 *
 * The mount may be dead or recovering, so its path is found in mountinfo and never looked at.
 */
import { readlinkSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { errorCode } from '../errors.ts';
import { LEAVE_MS, native } from '../native.ts';
import { ANSWER_MS, connectIfRunning, type Polyd } from './client.ts';
import { CliError, describe, exitCodes, mountFailure } from './errors.ts';
import { fusermount } from './fusermount.ts';
import { currentFlags, isPoly, type MountinfoLine, readMountinfo } from '../mountinfo.ts';

export interface UmountRequest {
  program: string;
  directory: string;
  /** Detach now, end when nothing uses it any more (MNT_DETACH). */
  lazy?: boolean;
  /** Abort what is under way (MNT_FORCE), and make polyd drop the mount whatever its state is. */
  force?: boolean;
  /** umount -r: when busy, make it read-only instead. */
  orReadOnly?: boolean;
  namespace?: string | undefined;
}

/** How long polyd may take to notice that a connection ended. */
const GONE_MS = 10_000;
/** A lazily detached mount may be in use for hours; only look whether it is gone already. */
const LAZY_GONE_MS = 500;

/** Unmounts; returns the path. Throws one clear line. */
export async function unmount(request: UmountRequest): Promise<string> {
  const polyd = await connectIfRunning();
  try {
    if (request.namespace !== undefined) native().enterMountNamespace(request.namespace);
    return await unmountWith(request, polyd);
  } catch (error) {
    throw mountFailure(request.directory, error);
  } finally {
    polyd?.end();
  }
}

/** The same with a connection at hand, for several in a row. */
export async function unmountWith(request: UmountRequest, polyd: Polyd | undefined): Promise<string> {
  const { directory, lazy = false, force = false } = request;
  const line = findMount(directory);
  if (!isPoly(line)) return await forgetOnly(request, line, polyd);
  try {
    detach(line.path, lazy, force);
  } catch (error) {
    if (errorCode(error) === 'EBUSY' && force && polyd) return await forceOut(line.path, polyd);
    if (errorCode(error) === 'EBUSY' && request.orReadOnly) return readOnlyInstead(line);
    throw error;
  }
  if (polyd) await waitGone(line.path, lazy, force, polyd);
  return line.path;
}

function detach(path: string, lazy: boolean, force: boolean): void {
  if (process.geteuid?.() === 0) native().umount(path, { lazy, force });
  else fusermount(path, { lazy: lazy || force });
}

async function waitGone(path: string, lazy: boolean, force: boolean, polyd: Polyd): Promise<void> {
  if (force) {
    await polyd.request('mount.forget', { path }, ANSWER_MS);
    return;
  }
  try {
    const params = { path, timeoutMs: lazy ? LAZY_GONE_MS : GONE_MS };
    await polyd.request('mount.gone', params, ANSWER_MS + LEAVE_MS);
  } catch (error) {
    if (errorCode(error) !== 'ETIMEDOUT') throw error;
    // Unmounted it is; another namespace, or files open since before `-l`, keep the file system itself alive.
    if (!lazy) process.stderr.write(`poly: ${path}: unmounted here, still in use elsewhere\n`);
  }
}

/** Busy in spite of MNT_FORCE: let polyd abort the connection, then detach what is left. */
async function forceOut(path: string, polyd: Polyd): Promise<string> {
  await polyd.request('mount.forget', { path }, ANSWER_MS);
  if (isPoly(findMount(path))) detach(path, true, false);
  return path;
}

/** Not mounted in this namespace; --force drops what polyd knows under that path. */
async function forgetOnly(
  { directory, force = false }: UmountRequest,
  line: MountinfoLine | undefined,
  polyd: Polyd | undefined,
): Promise<string> {
  if (line)
    throw new CliError(exitCodes.usage, `${directory}: not a poly mount (type ${line.type})`, 'EINVAL');
  const path = resolve(directory);
  const known = polyd ? await polyd.request('mount.find', { path }, ANSWER_MS) : null;
  if (!known || !polyd) throw new CliError(exitCodes.mount, `${directory}: not mounted`, 'EINVAL');
  if (!force) {
    const why = 'not mounted in this mount namespace, but known to the daemon';
    throw new CliError(exitCodes.mount, `${directory}: ${why} (give it up with --force)`, 'EINVAL');
  }
  await polyd.request('mount.forget', { path }, ANSWER_MS);
  return path;
}

function readOnlyInstead(line: MountinfoLine): string {
  native().remount(line.path, { ...currentFlags(line), ro: true });
  process.stderr.write(`umount.poly: ${line.path}: is busy, made read-only instead\n`);
  return line.path;
}

/**
 * The topmost mount on `directory`. Only its parents are resolved by the file system, as the last component may be a
 * mount that does not answer; a symbolic link to a mount point is followed when nothing is mounted on the link.
 */
export function findMount(directory: string): MountinfoLine | undefined {
  const lines = readMountinfo();
  const at = (path: string): MountinfoLine | undefined => lines.findLast((line) => line.path === path);
  const plain = resolve(directory);
  const direct = at(plain);
  if (direct) return direct;
  try {
    const path = join(realpathSync(dirname(plain)), basename(plain));
    return at(path) ?? at(resolve(dirname(path), readlinkSync(path))) ?? at(realpathSync(path));
  } catch (error) {
    const code = errorCode(error);
    // readlink(2): EINVAL is no link.
    if (code === 'EINVAL') return undefined;
    const exit = code === 'ENOENT' ? exitCodes.usage : exitCodes.mount;
    throw new CliError(exit, `${directory}: ${describe(error)}`, code);
  }
}

/** The mount point's path without asking the mount, which may not answer; as typed when it is not mounted here. */
export function mountPoint(path: string): string {
  try {
    return findMount(path)?.path ?? resolve(path);
  } catch {
    return resolve(path);
  }
}
