/** How commands reach polyd: connect to its control socket, and start it where that is what the user expects. */
import { errorCode, PolyError } from '../errors.ts';
import type { PolydMethods } from '../protocol.ts';
import { connectRpc, type RpcPeer } from '../rpc.ts';
import { checkRunDir, type RunDir, runDir } from '../rundir.ts';
import { CliError, exitCodes } from './errors.ts';

export type Polyd = RpcPeer<PolydMethods>;

/** polyd answers at once or after starting a service; what takes longer than this is stuck. */
export const ANSWER_MS = 30_000;

/** The daemon, or undefined when it is not running. */
export async function connectIfRunning(dir: RunDir = runDir()): Promise<Polyd | undefined> {
  try {
    checkRunDir(dir);
    return await connectRpc<PolydMethods>(dir.controlSocket);
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' || code === 'ECONNREFUSED') return undefined;
    if (error instanceof PolyError) throw error;
    throw new CliError(exitCodes.system, `${dir.controlSocket}: ${String(code)}`, code);
  }
}

export function notRunning(dir: RunDir = runDir()): CliError {
  return new CliError(exitCodes.notRunning, `daemon: not running in ${dir.path} (start it with: poly start)`);
}

/** Runs `use` with a connection that is closed afterwards; exit code 3 when the daemon is not running. */
export async function withPolyd<T>(use: (polyd: Polyd) => Promise<T>): Promise<T> {
  const polyd = await connectIfRunning();
  if (!polyd) throw notRunning();
  try {
    return await use(polyd);
  } finally {
    polyd.end();
  }
}

/** The daemon, started when it is not running: one line on stderr says so. */
export async function connectOrStart(program: string): Promise<Polyd> {
  const running = await connectIfRunning();
  if (running) return running;
  const { startDaemon } = await import('./daemon.ts');
  const polyd = await startDaemon();
  const { pid } = await polyd.request('status', {}, ANSWER_MS);
  process.stderr.write(`${program}: started the daemon (pid ${String(pid)})\n`);
  return polyd;
}
