/** Which daemon's mounts a program may reach by the fast path. */
import { lstatSync } from 'node:fs';
import { errorCode, errorMessage } from '../errors.ts';
import type { NativeAddon } from '../native.ts';
import { checkRunDir, type RunDir, runDir, runDirPath } from '../rundir.ts';

/** The user's own daemon, and root's, in that order; POLY_RUN_DIR leaves no choice. */
export function candidates(env: NodeJS.ProcessEnv = process.env): RunDir[] {
  const own = runDirPath(env);
  const system = runDirPath({}, 0);
  return env['POLY_RUN_DIR'] || own === system ? [runDir(own)] : [runDir(own), runDir(system)];
}

/**
 * Why there is no fast path by this run directory, or undefined. The keeper outlives the daemon, and services serve on
 * without it: who hands out the mount table is enough.
 */
export function troubleWith(addon: NativeAddon, dir: RunDir): string | undefined {
  try {
    // A stranger's table would lead anywhere.
    const { uid } = lstatSync(dir.path);
    checkRunDir(dir, uid === 0 ? 0 : process.geteuid?.());
    if (addon.mountTableFetch(dir.tableSocket) !== null) return undefined;
  } catch (error) {
    if (errorCode(error) === 'EPERM') return errorMessage(error);
  }
  return `the daemon is not running in ${dir.path}`;
}
