/**
 * `-o remount,ro` and its kin: the service learns first (it refuses writes from every front end), then the kernel's
 * flags follow. If the kernel refuses (EBUSY: files open for writing), the service is put back.
 */
import { errorCode } from '../errors.ts';
import { native, type MountFlags } from '../native.ts';
import { parseSettings } from '../options.ts';
import type { MountOptions } from '../protocol.ts';
import { ANSWER_MS, type Polyd, withPolyd } from './client.ts';
import { CliError, exitCodes, mountFailure } from './errors.ts';
import { currentFlags, isPoly, type MountinfoLine } from '../mountinfo.ts';
import { findMount } from './umount_flow.ts';

export interface RemountRequest {
  directory: string;
  /** Without "remount". */
  options: MountOptions;
  namespace?: string | undefined;
}

export async function remountFilesystem(request: RemountRequest): Promise<void> {
  try {
    // What is wrong with the options is said before anything is changed.
    const { flags } = parseSettings(request.options);
    await withPolyd((polyd) => remountWith(request, flags, polyd));
  } catch (error) {
    throw mountFailure(request.directory, error);
  }
}

async function remountWith(request: RemountRequest, asked: MountFlags, polyd: Polyd): Promise<void> {
  if (request.namespace !== undefined) native().enterMountNamespace(request.namespace);
  const line = findMount(request.directory);
  if (!isPoly(line)) throw new CliError(exitCodes.mount, `${request.directory}: not a poly mount`, 'EINVAL');
  const { path } = line;
  if (process.geteuid?.() !== 0 && asked.ro === false && currentFlags(line).ro) {
    throw new CliError(exitCodes.usage, `${path}: mounted read-only; only root can change that`, 'EPERM');
  }
  await polyd.request('mount.remount', { path, options: flagOptions(asked) }, ANSWER_MS);
  // Only root may change the kernel's flags; for others the service alone decides over ro and rw.
  if (process.geteuid?.() !== 0) return;
  try {
    native().remount(path, mergedFlags(line, asked));
  } catch (error) {
    const before = currentFlags(line).ro ? 'ro' : 'rw';
    await polyd
      .request('mount.remount', { path, options: { [before]: true } }, ANSWER_MS)
      .catch(() => undefined);
    if (errorCode(error) !== 'EBUSY') throw error;
    throw new CliError(exitCodes.mount, `${path}: is busy (files there are open for writing)`, 'EBUSY');
  }
}

/** MS_REMOUNT sets all flags anew: those not asked for stay as they are. Of the atime flags only one set can be. */
export function mergedFlags(line: MountinfoLine, asked: MountFlags): MountFlags {
  const flags = currentFlags(line);
  if (asked.noatime ?? asked.relatime ?? asked.strictatime) {
    delete flags.noatime;
    delete flags.relatime;
  }
  return { ...flags, ...asked };
}

/** Only what the mount's flags are made of: a remount changes no sizes and no pools. */
function flagOptions(flags: MountFlags): MountOptions {
  const options: MountOptions = {};
  if (flags.ro !== undefined) options[flags.ro ? 'ro' : 'rw'] = true;
  return options;
}
