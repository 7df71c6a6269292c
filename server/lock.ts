/**
 * One polyd per run directory: flock(2) on polyd.pid. The lock belongs to the open file description and ends with the
 * last process that has it, however that ends; nothing can be stale. Node has no flock, so flock(1) of util-linux takes
 * it on the inherited descriptor, which is ours. The file is never removed: a removed file could be locked twice.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { PolyError, withContext } from './errors.ts';
import type { RunDir } from './rundir.ts';

/** Exit status that flock(1) is told to use for "locked by another". */
const CONFLICT = 75;

/** Takes the lock and writes our pid; EEXIST names the polyd that has it. Held until this process ends. */
export function lockRunDir(dir: RunDir): void {
  let fd: number;
  try {
    fd = openSync(dir.pidFile, 'a+', 0o600);
  } catch (error) {
    throw withContext(dir.pidFile, error);
  }
  const result = spawnSync('flock', ['-x', '-n', '-E', String(CONFLICT), '3'], {
    stdio: ['ignore', 'ignore', 'ignore', fd],
  });
  if (result.status === 0) {
    ftruncateSync(fd);
    writeSync(fd, `${String(process.pid)}\n`);
    return;
  }
  closeSync(fd);
  if (result.status === CONFLICT) {
    const pid = readFileSync(dir.pidFile, 'utf8').trim();
    throw new PolyError('EEXIST', `polyd already runs in ${dir.path} (pid ${pid === '' ? 'unknown' : pid})`);
  }
  throw withContext(
    `cannot lock ${dir.pidFile} with flock(1)`,
    result.error ?? new Error(String(result.status)),
  );
}
