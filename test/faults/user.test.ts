/** The same for an ordinary user: without capabilities files are found again by their names. */
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { abortConnection, mountLines } from '../server/real.ts';
import { full, real, whyNot } from './harness.ts';

const USER = 1000;
const reason = whyNot('/usr/bin/fusermount3', '/usr/bin/setpriv');

/** 0666 is what udev makes of it on Debian; containers often leave it at 0600. */
function openFuseToAll(t: ExecutionContext): void {
  const mode = statSync('/dev/fuse').mode & 0o777;
  chmodSync('/dev/fuse', 0o666);
  t.teardown(() => {
    chmodSync('/dev/fuse', mode);
  });
}

function home(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'poly-user-'));
  t.teardown(() => {
    for (const line of mountLines().filter((mounted) => mounted.path.startsWith(`${path}/`))) {
      abortConnection(line.device);
      spawnSync('umount', ['-l', line.path], { timeout: 5000 });
    }
    if (existsSync(join(path, 'mnt')) && !mountLines().some((line) => line.path.startsWith(`${path}/`)))
      rmSync(path, { recursive: true, force: true });
  });
  chownSync(path, USER, USER);
  for (const name of ['run', 'mnt', 'src']) {
    mkdirSync(join(path, name), { mode: 0o700 });
    chownSync(join(path, name), USER, USER);
  }
  return path;
}

function storm(t: ExecutionContext, type: 'memory' | 'local', kills: number): Promise<void> {
  t.timeout(60_000 + kills * 3000);
  openFuseToAll(t);
  const path = home(t);
  const spec = type === 'memory' ? 'memory' : `local:${join(path, 'src')}`;
  const script = fileURLToPath(new URL('./user_storm.js', import.meta.url));
  const identity = ['--reuid', String(USER), '--regid', String(USER), '--clear-groups'];
  const { status, stdout, stderr } = spawnSync(
    'setpriv',
    [...identity, process.execPath, script, path, spec, String(kills)],
    {
      encoding: 'utf8',
      timeout: 50_000 + kills * 3000,
      env: { ...process.env, POLY_RUN_DIR: join(path, 'run'), POLY_RESTART_BURST: '1000', HOME: path },
    },
  );
  t.log(stdout.trim());
  t.is(status, 0, `${stdout}\n${stderr}`);
  return Promise.resolve();
}

real("a user's memory mount: 5 kills", (t) => storm(t, 'memory', 5), { reason });
real("a user's local mount: 5 kills", (t) => storm(t, 'local', 5), { reason });
real("a user's memory mount: 40 kills", (t) => storm(t, 'memory', 40), { only: full, reason });
real("a user's local mount: 40 kills", (t) => storm(t, 'local', 40), { only: full, reason });
