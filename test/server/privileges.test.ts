/** Real services: what they may do, who may have them, and how they end. */
import test, { type ExecutionContext } from 'ava';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { failure, isRunning, status, until } from './helpers.ts';
import { missing, mountLines, mountReal, realSite, sh } from './real.ts';

const reason = missing();
const real = (title: string, body: (t: ExecutionContext) => Promise<void>): void => {
  if (reason === undefined) test.serial(title, body);
  else test.serial.skip(`${title} (${reason})`, body);
};

real('a service has bounded capabilities, no new privileges, few threads and little memory', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  await mountReal(site, client, join(root, 'a'), 'memory');
  await sh(`touch ${root}/a/f`);
  const [service] = (await status(client)).services;
  const text = readFileSync(`/proc/${String(service?.pid)}/status`, 'utf8');
  t.regex(text, /^NoNewPrivs:\t1$/m);
  const bits = BigInt(`0x${/^CapEff:\t([0-9a-f]+)$/m.exec(text)?.[1] ?? 'ff'}`);
  const has = (bit: number) => (bits >> BigInt(bit)) % 2n === 1n;
  // capability.h: CHOWN 0, DAC_READ_SEARCH 2, SETUID 7; NET_ADMIN 12, SYS_MODULE 16, SYS_PTRACE 19, SYS_BOOT 22.
  t.deepEqual([0, 2, 7].map(has), [true, true, true]);
  t.deepEqual([12, 16, 19, 22].map(has), [false, false, false, false]);
  t.true((service?.rss ?? Infinity) < 64 * 2 ** 20, `${String(service?.rss)} bytes`);
  t.log(`rss ${String((service?.rss ?? 0) >> 20)} MiB, threads ${String(service?.threads)}`);
});

real('stop: "keep" leaves mounts working, "unmount" leaves nothing running', async (t) => {
  const { site, root } = realSite(t);
  const first = await site.start();
  await mountReal(site, first, join(root, 'a'), 'memory');
  const before = await status(first);
  t.regex(await failure(first.request('stop', { mounts: 'unmount' })), /^EBUSY still mounted/);
  await first.request('stop', { mounts: 'keep' });
  await until('polyd ended', 5000, () => site.child?.exitCode === 0);
  t.is(await sh(`echo x > ${root}/a/f; cat ${root}/a/f`), 'x\n');
  const second = await site.start();
  await sh(`umount ${root}/a`);
  await second.request('mount.gone', { path: join(root, 'a'), timeoutMs: 5000 });
  await second.request('stop', { mounts: 'unmount' });
  await until('polyd ended', 5000, () => site.child?.exitCode === 0);
  const pids = [before.keeper.pid, ...before.services.map((service) => service.pid)];
  await until('all ended', 5000, () => !pids.some(isRunning));
  t.deepEqual(
    readdirSync(site.dir.path).filter((name) => name.endsWith('.sock')),
    [],
  );
});

real('an ordinary user has a polyd, mounts through fusermount3 and recoveries of its own', (t) => {
  if (!existsSync('/usr/bin/fusermount3')) {
    t.log('skipped: needs fusermount3');
    t.pass();
    return Promise.resolve();
  }
  // 0666 is what udev makes of it on Debian; containers often leave it at 0600.
  const mode = statSync('/dev/fuse').mode & 0o777;
  chmodSync('/dev/fuse', 0o666);
  t.teardown(() => {
    chmodSync('/dev/fuse', mode);
  });
  const home = mkdtempSync(join(tmpdir(), 'poly-user-'));
  chownSync(home, 1000, 1000);
  t.teardown(() => {
    for (const line of mountLines().filter((mounted) => mounted.path.startsWith(home))) {
      spawnSync('umount', ['-l', line.path], { timeout: 5000 });
    }
    rmSync(home, { recursive: true, force: true });
  });
  for (const name of ['run', 'mnt', 'src']) {
    mkdirSync(join(home, name), { mode: 0o700 });
    chownSync(join(home, name), 1000, 1000);
  }
  const script = fileURLToPath(new URL('./user_session.js', import.meta.url));
  const {
    stdout,
    stderr,
    status: code,
  } = spawnSync(
    'setpriv',
    ['--reuid', '1000', '--regid', '1000', '--clear-groups', process.execPath, script, home],
    { encoding: 'utf8', timeout: 30_000, env: { ...process.env, POLY_RUN_DIR: join(home, 'run') } },
  );
  t.is(code, 0, `${stdout}\n${stderr}`);
  t.regex(stdout, /all well/);
  return Promise.resolve();
});
