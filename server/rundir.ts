/**
 * The run directory and the names in it. Everything polyd, its services, the keeper and the CLI meet over is here.
 *
 * Only its owner may list it, and may open what is in it. Root's may be searched by everybody (0711), because programs
 * of other users reach the sockets in `attach/` through it.
 */
import { chmodSync, lstatSync, mkdirSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { errorCode, PolyError, withContext } from './errors.ts';

/** sun_path less the terminating NUL, unix(7). */
const MAX_SOCKET_PATH = 107;

export interface RunDir {
  path: string;
  controlSocket: string;
  keeperSocket: string;
  stateFile: string;
  pidFile: string;
  logFile: string;
  keeperLog: string;
  /** What programs that use the fast path need, and all they can reach; POLY_ATTACH names it. */
  attachDir: string;
  /** The keeper's: hands out the mount table. */
  tableSocket: string;
  /** The mount points, each with a NUL behind it: tells programs that have nothing to do with them so, cheaply. */
  mountPoints: string;
  /** A service's: processes attach to it here. */
  attachSocket(id: number): string;
  serviceSocket(id: number): string;
  serviceLog(id: number): string;
}

/** POLY_RUN_DIR, else /run/poly for root, else $XDG_RUNTIME_DIR/poly, else /tmp/poly-<uid>. */
export function runDirPath(
  env: NodeJS.ProcessEnv = process.env,
  uid: number = process.geteuid?.() ?? -1,
): string {
  if (env['POLY_RUN_DIR']) return resolve(env['POLY_RUN_DIR']);
  if (uid === 0) return '/run/poly';
  if (env['XDG_RUNTIME_DIR']) return join(resolve(env['XDG_RUNTIME_DIR']), 'poly');
  return `/tmp/poly-${String(uid)}`;
}

/** The names in run directory `path`; nothing is created or looked at. */
export function runDir(path: string = runDirPath()): RunDir {
  const attachDir = join(path, 'attach');
  const longest = join(attachDir, `service-${String(0x7fffffff)}.sock`);
  if (Buffer.byteLength(longest) > MAX_SOCKET_PATH) {
    throw new PolyError(
      'ENAMETOOLONG',
      `run directory ${path}: too long for unix sockets in it (set POLY_RUN_DIR)`,
    );
  }
  return {
    path,
    controlSocket: join(path, 'control.sock'),
    keeperSocket: join(path, 'keeper.sock'),
    stateFile: join(path, 'state.json'),
    pidFile: join(path, 'polyd.pid'),
    logFile: join(path, 'polyd.log'),
    keeperLog: join(path, 'keeper.log'),
    attachDir,
    tableSocket: join(attachDir, 'table.sock'),
    mountPoints: join(attachDir, 'mount-points'),
    attachSocket: (id) => join(attachDir, `service-${String(id)}.sock`),
    serviceSocket: (id) => join(path, `service-${String(id)}.sock`),
    serviceLog: (id) => join(path, `service-${String(id)}.log`),
  };
}

/** Permission bits of the run directory, and those it must not have. */
function modes(uid: number): { mode: number; forbidden: number } {
  return uid === 0 ? { mode: 0o711, forbidden: 0o066 } : { mode: 0o700, forbidden: 0o077 };
}

/**
 * Creates the run directory if need be, and `attach` in it. It must be a directory of ours that nobody else can list or
 * write: who can write there could stand in for polyd. It is not repaired, as POLY_RUN_DIR=/tmp would then cost
 * everybody /tmp; but root's own of mode 0700, as it was once made, is opened for searching.
 */
export function ensureRunDir(dir: RunDir, uid: number = process.geteuid?.() ?? -1): void {
  try {
    mkdirSync(dir.path, { recursive: true, mode: modes(uid).mode });
  } catch (error) {
    throw withContext(`run directory ${dir.path}`, error);
  }
  checkRunDir(dir, uid);
  try {
    if (uid === 0) widen(dir.path);
    ensureAttachDir(dir.attachDir);
  } catch (error) {
    throw withContext(`run directory ${dir.path}`, error);
  }
}

/** What polyd and its company keep in the run directory. */
const OWN_FILES =
  /^(polyd\.pid|state\.json.*|(polyd|keeper|service-\d+)\.log|(control|keeper|service-\d+)\.sock)$/;

/** Lets others pass through a run directory, after all that is not for them has been closed to them. */
function widen(path: string): void {
  const names = readdirSync(path);
  // POLY_RUN_DIR may name anything, a home directory for instance.
  if (names.length > 0 && !names.includes('polyd.pid')) return;
  for (const name of names.filter((candidate) => OWN_FILES.test(candidate))) {
    try {
      chmodSync(join(path, name), 0o600);
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
    }
  }
  chmodSync(path, modes(0).mode);
}

function ensureAttachDir(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o755 });
  if (!lstatSync(path).isDirectory()) throw new PolyError('ENOTDIR', `${path}: not a directory`);
  // Whatever the umask was.
  chmodSync(path, 0o755);
}

/** Throws unless the run directory is ours and private. A client calls it before it trusts the sockets in there. */
export function checkRunDir(dir: RunDir, uid: number = process.geteuid?.() ?? -1): void {
  let stat;
  try {
    stat = lstatSync(dir.path);
  } catch (error) {
    throw withContext(`run directory ${dir.path}`, error);
  }
  if (!stat.isDirectory()) throw new PolyError('ENOTDIR', `run directory ${dir.path}: not a directory`);
  if (stat.uid !== uid) {
    throw new PolyError('EPERM', `run directory ${dir.path}: belongs to uid ${String(stat.uid)}, not to us`);
  }
  const { mode, forbidden } = modes(uid);
  if ((stat.mode & forbidden) !== 0) {
    const found = (stat.mode & 0o777).toString(8);
    throw new PolyError(
      'EPERM',
      `run directory ${dir.path}: mode ${found} lets others in (need ${mode.toString(8)})`,
    );
  }
}
