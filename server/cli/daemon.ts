/**
 * Starting polyd: through systemd where root's poly.service is installed and systemd runs, directly otherwise.
 */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ensureRunDir, type RunDir, runDir } from '../rundir.ts';
import { connectIfRunning, type Polyd } from './client.ts';
import { CliError, exitCodes } from './errors.ts';

const START_MS = 15_000;
const POLL_MS = 25;

/** Where systemd looks for units of the system, systemd.unit(5). */
const UNIT_DIRECTORIES = ['/etc', '/run', '/usr/local/lib', '/usr/lib', '/lib'];

export function polydScript(): string {
  return fileURLToPath(new URL('../polyd.js', import.meta.url));
}

/** True when the system's poly.service is the daemon that commands in this environment talk to. */
export function underSystemd(): boolean {
  if (process.geteuid?.() !== 0 || process.env['POLY_RUN_DIR']) return false;
  // sd_booted(3)
  if (!existsSync('/run/systemd/system')) return false;
  return UNIT_DIRECTORIES.some((directory) => existsSync(`${directory}/systemd/system/poly.service`));
}

/** Starts the daemon and returns a connection to it. */
export async function startDaemon(): Promise<Polyd> {
  const dir = runDir();
  if (underSystemd()) return startUnit(dir);
  ensureRunDir(dir);
  const log = openSync(dir.logFile, 'a', 0o600);
  try {
    return await startProcess(dir, log);
  } finally {
    closeSync(log);
  }
}

async function startUnit(dir: RunDir): Promise<Polyd> {
  const { status, stderr } = spawnSync('systemctl', ['start', 'poly.service'], { encoding: 'utf8' });
  // Type=notify: systemctl returns when the daemon is ready.
  const polyd = status === 0 ? await connectIfRunning(dir) : undefined;
  if (polyd) return polyd;
  const why = stderr.trim().split('\n')[0] ?? '';
  throw new CliError(
    exitCodes.system,
    `poly.service: cannot be started: ${why || 'see journalctl -u poly.service'}`,
  );
}

async function startProcess(dir: RunDir, log: number): Promise<Polyd> {
  const logStart = fstatSync(log).size;
  const child = spawn(process.execPath, [polydScript()], {
    detached: true,
    // A directory the daemon stands in could never be unmounted.
    cwd: '/',
    stdio: ['ignore', log, log],
  });
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => {
      resolve(error.message);
    });
    child.once('exit', (code, signal) => {
      resolve(lastLine(dir.logFile, logStart) ?? `ended with ${signal ?? `status ${String(code)}`}`);
    });
  });
  let why: string | undefined;
  void ended.then((reason) => {
    why = reason;
  });
  const deadline = Date.now() + START_MS;
  while (Date.now() < deadline) {
    const polyd = await connectIfRunning(dir);
    if (polyd) {
      child.removeAllListeners();
      child.unref();
      return polyd;
    }
    // Another command started one at the same moment: that one is ours as well, as soon as it is ready.
    if (why !== undefined && !why.includes('already runs'))
      throw new CliError(exitCodes.system, `daemon: cannot be started: ${why}`);
    await sleep(POLL_MS);
  }
  child.kill();
  throw new CliError(
    exitCodes.system,
    `daemon: not ready after ${String(START_MS / 1000)} s (see ${dir.logFile})`,
  );
}

/** What the daemon wrote last since `start`: pino's "msg" or the line itself. */
function lastLine(file: string, start: number): string | undefined {
  const fd = openSync(file, 'r');
  try {
    const buffer = Buffer.alloc(Math.min(65_536, Math.max(0, fstatSync(fd).size - start)));
    readSync(fd, buffer, 0, buffer.length, start);
    const lines = buffer.toString('utf8').trim().split('\n').filter(Boolean);
    // Of a stack trace the line that names the error says more than its last one.
    const line =
      lines.findLast((text) => text.startsWith('{')) ??
      lines.find((text) => /Error|polyd:/.test(text)) ??
      lines.at(-1);
    if (line === undefined) return undefined;
    return message(line);
  } finally {
    closeSync(fd);
  }
}

function message(line: string): string {
  try {
    const entry: unknown = JSON.parse(line);
    if (typeof entry === 'object' && entry !== null && 'msg' in entry) return String(entry.msg);
  } catch {
    // Not pino's.
  }
  return line;
}
