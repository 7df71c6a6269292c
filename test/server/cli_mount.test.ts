/**
 * The steps of mounting and their undoing, with stand-ins for polyd and the addon: what a real one does is tested in
 * test/mount-helpers. Needs root for mount(2).
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import anyTest, { type TestFn } from 'ava';
import { mountAt } from '../../server/mountinfo.ts';
import type { MountInfo, PrepareResult } from '../../server/protocol.ts';
import {
  type Environment,
  failure,
  isOneLine,
  root,
  run,
  runPoly,
  type StandIn,
  standInPolyd,
  temporaryDirectory,
} from './cli_harness.ts';

interface Context {
  directory: string;
  mountPoint: string;
  env: Environment;
}

const test = anyTest as TestFn<Context>;
const canMount = process.geteuid?.() === 0 && existsSync('/dev/fuse');
const rootTest = canMount ? test : test.skip;

test.beforeEach((t) => {
  const directory = temporaryDirectory();
  const mountPoint = join(directory, 'mnt');
  mkdirSync(mountPoint);
  const env = {
    POLY_ADDON: join(root, 'test/server/cli_fake_addon.cjs'),
    FAKE_ADDON_LOG: join(directory, 'log'),
  };
  writeFileSync(env.FAKE_ADDON_LOG, '');
  t.context = { directory, mountPoint, env };
});

test.afterEach.always((t) => {
  const { directory, mountPoint } = t.context;
  while (mountAt(mountPoint)) execFileSync('umount', ['-i', '-l', mountPoint]);
  rmSync(directory, { recursive: true, force: true });
});

function prepared(outcome: PrepareResult['outcome'] = 'new-service'): PrepareResult {
  return {
    mount: 5,
    outcome,
    service: 3,
    instance: 4,
    keeperName: 'service-3/fuse/4/0',
    source: 'memory',
    flags: { nosuid: true },
    data: 'default_permissions,allow_other',
    fusermountOptions: '',
  };
}

const done = (): Record<string, never> => ({});

function log(context: Context): string[] {
  return readFileSync(join(context.directory, 'log'), 'utf8').split('\n').filter(Boolean);
}

function methods(daemon: StandIn): string[] {
  return daemon.calls.map((call) => call.method);
}

function known(path: string, device: string): MountInfo {
  return {
    path,
    spec: 'memory',
    type: 'memory',
    source: 'memory',
    service: 3,
    instance: 4,
    pool: null,
    outcome: 'new-service',
    shares: [],
    options: {},
    readOnly: false,
    state: 'mounted',
    device,
    mountId: 1,
    since: '2026-01-01T00:00:00Z',
  };
}

rootTest('mount: prepare, mount, PUT, commit with the device the kernel gave', async (t) => {
  const { mountPoint, env } = t.context;
  const daemon = await standInPolyd({ 'mount.prepare': () => prepared(), 'mount.commit': done });
  symlinkSync('mnt', join(t.context.directory, 'link'));
  const link = join(t.context.directory, 'link/');
  const args = ['mount', 'memory', link, '-o', 'size=1m,nofail', '-o', 'noatime', '--share', '--pool', 'p'];
  const ended = await runPoly(args, { ...env, ...daemon.env });
  daemon.close();
  t.deepEqual(ended, { code: 0, stdout: `${mountPoint}: memory, service 3 (new-service)\n`, stderr: '' });
  t.deepEqual(log(t.context), [`mount ${mountPoint} memory nosuid`, 'put service-3/fuse/4/0 1']);
  const line = mountAt(mountPoint);
  t.deepEqual(daemon.calls, [
    {
      method: 'mount.prepare',
      params: {
        path: mountPoint,
        spec: 'memory',
        options: { size: '1m', noatime: true, share: true, pool: 'p' },
      },
    },
    { method: 'mount.commit', params: { mount: 5, device: line?.device, mountId: line?.mountId } },
  ]);
});

rootTest('a commit that fails is undone: nothing mounted, aborted, status 32', async (t) => {
  const { mountPoint, env } = t.context;
  const daemon = await standInPolyd({
    'mount.prepare': () => prepared(),
    'mount.commit': () => failure('EIO', 'service 3: did not start'),
    'mount.abort': done,
  });
  const ended = await runPoly(['mount', 'memory', mountPoint], { ...env, ...daemon.env });
  daemon.close();
  t.is(ended.code, 32);
  t.is(ended.stderr, `poly: ${mountPoint}: service 3: did not start\n`);
  t.is(mountAt(mountPoint), undefined);
  t.deepEqual(methods(daemon), ['mount.prepare', 'mount.commit', 'mount.abort']);
});

rootTest('a mount(2) that fails is undone', async (t) => {
  const { mountPoint, env } = t.context;
  const daemon = await standInPolyd({ 'mount.prepare': () => prepared(), 'mount.abort': done });
  const failing = { ...env, ...daemon.env, FAKE_ADDON_MOUNT_ERROR: 'EPERM' };
  const ended = await runPoly(['mount', 'memory', mountPoint], failing);
  daemon.close();
  t.is(ended.code, 1);
  t.is(ended.stderr, `poly: ${mountPoint}: not permitted to mount (needs CAP_SYS_ADMIN)\n`);
  t.deepEqual(methods(daemon), ['mount.prepare', 'mount.abort']);
});

rootTest('Ctrl-C while the service starts: undone, status 8', async (t) => {
  const { mountPoint, env } = t.context;
  let pid = 0;
  const daemon = await standInPolyd({
    'mount.prepare': () => prepared(),
    'mount.commit': () => {
      process.kill(pid, 'SIGINT');
      return new Promise(() => undefined);
    },
    'mount.abort': done,
  });
  const ended = await run(
    process.execPath,
    [join(root, 'server/bin/poly.js'), 'mount', 'memory', mountPoint],
    { ...env, ...daemon.env },
    { onStart: (started) => (pid = started) },
  );
  daemon.close();
  t.is(ended.code, 8);
  t.is(ended.stderr, `poly: ${mountPoint}: interrupted\n`);
  t.is(mountAt(mountPoint), undefined);
  t.is(methods(daemon).at(-1), 'mount.abort');
});

rootTest('a refusal by the daemon names the path', async (t) => {
  const { mountPoint, env } = t.context;
  const daemon = await standInPolyd({
    'mount.prepare': ({ path }) => failure('EBUSY', `${path}: memory:x is mounted there`),
  });
  const ended = await runPoly(['mount', 'memory', mountPoint], { ...env, ...daemon.env });
  daemon.close();
  t.deepEqual(ended, { code: 32, stdout: '', stderr: `poly: ${mountPoint}: memory:x is mounted there\n` });
});

rootTest('a full match mounts nothing; one that this namespace does not see is an error', async (t) => {
  const { mountPoint, env } = t.context;
  const daemon = await standInPolyd({
    'mount.prepare': () => prepared('full-match'),
    'mount.find': ({ path }) => known(path, '0:99'),
  });
  const ended = await runPoly(['mount', 'memory', mountPoint], { ...env, ...daemon.env });
  daemon.close();
  t.is(ended.code, 32);
  t.regex(ended.stderr, /is mounted in another mount namespace.*poly umount --force/);
  t.true(isOneLine(ended.stderr));
  t.deepEqual(log(t.context), []);
});

/** A FUSE mount nobody serves: every look at it would hang or fail. */
function deadMount(path: string): void {
  const script =
    'exec 3<>/dev/fuse; mount -i -t fuse.poly -o fd=3,rootmode=40000,user_id=0,group_id=0 memory "$0"';
  execFileSync('bash', ['-c', script, path]);
}

rootTest('umount of a dead mount, by a link, without a daemon', async (t) => {
  const { mountPoint, directory, env } = t.context;
  deadMount(mountPoint);
  symlinkSync(mountPoint, join(directory, 'link'));
  const ended = await runPoly(['umount', join(directory, 'link')], { ...env, POLY_RUN_DIR: '/nonexistent' });
  t.deepEqual(ended, { code: 0, stdout: '', stderr: '' });
  t.is(mountAt(mountPoint), undefined);
  t.deepEqual(log(t.context), [`umount ${mountPoint}`]);
});

rootTest('umount waits until the daemon has seen it; --lazy and --force as umount(8)', async (t) => {
  const { mountPoint, env } = t.context;
  const daemon = await standInPolyd({ 'mount.gone': done, 'mount.forget': done });
  for (const options of [[], ['--lazy'], ['--force']]) {
    deadMount(mountPoint);
    const ended = await runPoly(['umount', mountPoint, ...options], { ...env, ...daemon.env });
    t.deepEqual(ended, { code: 0, stdout: '', stderr: '' });
  }
  daemon.close();
  t.deepEqual(log(t.context), [
    `umount ${mountPoint}`,
    `umount ${mountPoint} lazy`,
    `umount ${mountPoint} force`,
  ]);
  t.deepEqual(methods(daemon), ['mount.gone', 'mount.gone', 'mount.forget']);
});

rootTest('umount --force drops what only the daemon knows', async (t) => {
  const { mountPoint, env } = t.context;
  const daemon = await standInPolyd({
    'mount.find': ({ path }) => known(path, '0:99'),
    'mount.forget': done,
  });
  const plain = await runPoly(['umount', mountPoint], { ...env, ...daemon.env });
  t.is(plain.code, 32);
  t.regex(
    plain.stderr,
    /^poly: \S+: not mounted in this mount namespace, but known to the daemon .*--force\)\n$/,
  );
  t.is((await runPoly(['umount', mountPoint, '--force'], { ...env, ...daemon.env })).code, 0);
  daemon.close();
  t.is(methods(daemon).at(-1), 'mount.forget');
});

rootTest('of several mount points one that fails does not keep the others', async (t) => {
  const { mountPoint, env } = t.context;
  deadMount(mountPoint);
  const ended = await runPoly(['umount', '/usr', mountPoint], { ...env, POLY_RUN_DIR: '/nonexistent' });
  t.deepEqual(ended, { code: 32, stdout: '', stderr: 'poly: /usr: not mounted\n' });
  t.is(mountAt(mountPoint), undefined);
});

rootTest('remount: the service first, then the kernel; put back when the kernel refuses', async (t) => {
  const { mountPoint, env } = t.context;
  deadMount(mountPoint);
  const daemon = await standInPolyd({ 'mount.remount': () => ({ flags: {} }) });
  const args = ['mount', 'memory', mountPoint, '-o', 'remount,ro'];
  t.is((await runPoly(args, { ...env, ...daemon.env })).code, 0);
  const refused = await runPoly(args, { ...env, ...daemon.env, FAKE_ADDON_MOUNT_ERROR: 'EBUSY' });
  daemon.close();
  t.is(refused.code, 32);
  t.is(refused.stderr, `poly: ${mountPoint}: is busy (files there are open for writing)\n`);
  t.deepEqual(
    daemon.calls.map((call) => call.params),
    ['ro', 'ro', 'rw'].map((mode) => ({ path: mountPoint, options: { [mode]: true } })),
  );
  t.regex(log(t.context)[0] ?? '', /^remount \S+ \{.*"ro":true.*\}$/);
});
