/**
 * Starts service processes: detached (they outlive polyd), small, and with no more privilege than libservices need.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { RunDir } from './rundir.ts';

/**
 * Capabilities that a service of root keeps, capabilities(7). Acting as the caller: SETUID SETGID (fsuid and fsgid per
 * request), CHOWN DAC_OVERRIDE FOWNER FSETID MKNOD SETFCAP LINUX_IMMUTABLE. File handles: DAC_READ_SEARCH. trusted.*
 * attributes and FUSE passthrough: SYS_ADMIN. Reserved blocks and pipe sizes: SYS_RESOURCE. Shared memory: IPC_LOCK.
 * Asking whether a lock's owner lives: KILL.
 */
const CAPABILITIES = [
  'chown',
  'dac_override',
  'dac_read_search',
  'fowner',
  'fsetid',
  'setuid',
  'setgid',
  'mknod',
  'setfcap',
  'sys_admin',
  'linux_immutable',
  'sys_resource',
  'ipc_lock',
  'kill',
];

/**
 * V8 and libuv without helper threads, with a small young generation: a service's JavaScript does next to nothing.
 * Measured on Node 20: 5 threads instead of 11, and a start that is 10 to 20 ms shorter.
 */
const NODE_FLAGS = ['--v8-pool-size=0', '--max-semi-space-size=1'];

const SETPRIV = ['/usr/bin/setpriv', '/bin/setpriv'].find((path) => existsSync(path));

function setprivArguments(): string[] {
  const bounds = ['-all', ...CAPABILITIES.map((name) => `+${name}`)].join(',');
  // For uid 0 the bounding set is what execve(2) grants, so limiting it is enough.
  const limit = process.geteuid?.() === 0 ? ['--bounding-set', bounds] : [];
  return ['--no-new-privs', ...limit, '--'];
}

export interface ServiceCommand {
  id: number;
  dir: RunDir;
  /** The service's end of its scoped keeper connection; becomes its descriptor 3. */
  keeperFd: number;
  /** The CPU to poll on. */
  poll: number | undefined;
}

/** Starts service `id`; its output goes to its log. The caller closes keeperFd afterwards. */
export function spawnService(command: ServiceCommand): ChildProcess {
  const script = fileURLToPath(new URL('./service.js', import.meta.url));
  const node = [
    process.execPath,
    ...NODE_FLAGS,
    script,
    String(command.id),
    command.dir.serviceSocket(command.id),
    command.dir.attachSocket(command.id),
    ...(command.poll === undefined ? [] : [String(command.poll)]),
  ];
  const argv = SETPRIV === undefined ? node : [SETPRIV, ...setprivArguments(), ...node];
  const log = openSync(command.dir.serviceLog(command.id), 'a', 0o600);
  try {
    return spawn(argv[0] ?? process.execPath, argv.slice(1), {
      detached: true,
      cwd: '/',
      stdio: ['ignore', log, log, command.keeperFd],
      env: { ...process.env, UV_THREADPOOL_SIZE: '1', NODE_OPTIONS: '', NOTIFY_SOCKET: undefined },
    });
  } finally {
    closeSync(log);
  }
}
