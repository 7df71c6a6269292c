/** Ordinary users: a daemon of their own, mounts through fusermount3. Run as root, the tests become "nobody". */
import { chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import anyTest, { type ExecutionContext } from 'ava';
import type { MountInfo } from '../../server/protocol.ts';
import { type Ended, poly, root, run } from '../server/cli_harness.ts';
import { missing, realSite } from '../server/real.ts';
import { installedHelpers } from './installed.ts';

// fusermount3 wants a uid with a name.
const NOBODY = 65534;
const FUSE_CONF = '/etc/fuse.conf';
const ATTACH_CLIENT = join(root, 'build/native/test/server/attach-client');

const installed = installedHelpers();

function unavailable(): string | undefined {
  const why = missing();
  if (why !== undefined) return why;
  return existsSync('/usr/bin/fusermount3') ? undefined : 'needs fusermount3';
}

const why = unavailable();
const test = why === undefined ? anyTest.serial : anyTest.serial.skip;
if (why !== undefined) {
  anyTest(`ordinary users: skipped, ${why}`, (t) => {
    t.pass();
  });
}

interface Place {
  a: string;
  source: string;
  attachDir: string;
  as: (program: string, ...args: string[]) => Promise<Ended>;
  poly: (...args: string[]) => Promise<Ended>;
  sh: (script: string) => Promise<Ended>;
  ls: () => Promise<MountInfo[]>;
}

async function place(t: ExecutionContext): Promise<Place | undefined> {
  const { site, root: directory } = realSite(t);
  const [a = '', source = ''] = ['a', 'source'].map((name) => join(directory, name));
  for (const path of [a, source]) mkdirSync(path);
  writeFileSync(join(source, 'hello'), 'hello\n');
  for (const path of [site.dir.path, directory, a, source]) chownSync(path, NOBODY, NOBODY);
  const become = ['setpriv', `--reuid=${String(NOBODY)}`, `--regid=${String(NOBODY)}`, '--clear-groups'];
  const vars = ['POLY_RUN_DIR', 'POLY_CONFIG_DIR', 'PATH'].map((name) => `${name}=${site.env[name] ?? ''}`);
  // An environment as bare as mount(8) leaves it.
  const as = (program: string, ...args: string[]): Promise<Ended> =>
    run('env', ['-i', ...vars, `A=${a}`, ...become, program, ...args]);
  if ((await as('test', '-r', poly)).code !== 0) {
    t.pass('the checkout is not readable for other users');
    return undefined;
  }
  const asPoly = (...args: string[]): Promise<Ended> => as(process.execPath, poly, ...args);
  return {
    a,
    source,
    attachDir: site.dir.attachDir,
    as,
    poly: asPoly,
    sh: (script) => as('sh', '-c', script),
    ls: async () => JSON.parse((await asPoly('ls', '--json')).stdout) as MountInfo[],
  };
}

test('mount, use, list, umount, stop: all without root; nobody else gets in', async (t) => {
  const user = await place(t);
  if (!user) return;
  for (const spec of [`local:${user.source}`, 'memory']) {
    const mounted = await user.poly('mount', spec, user.a);
    t.is(mounted.code, 0, mounted.stderr);
    t.is((await user.sh('echo data >"$A/f" && cat "$A/f" && rm "$A/f"')).stdout, 'data\n');
    t.is((await user.sh('touch "$A/g"; ls "$A"')).stdout, spec === 'memory' ? 'g\n' : 'g\nhello\n');
    t.is((await run('ls', [user.a])).code, 2);
    // Nor by the fast path, though root reaches its socket.
    const attach = [user.attachDir, user.a, 'g'];
    t.is((await user.as(ATTACH_CLIENT, ...attach)).stdout, 'size 0\n');
    t.is((await run(ATTACH_CLIENT, attach)).stdout, 'prove EACCES\n');
    t.like((await user.ls())[0], { path: user.a, spec, state: 'mounted' });
    t.deepEqual(await user.poly('umount', user.a), { code: 0, stdout: '', stderr: '' });
    t.deepEqual(await user.ls(), []);
  }
  t.is((await user.poly('stop')).stdout, 'stopped\n');
});

test('fusermount3 -u and umount by root end a mount as well', async (t) => {
  const user = await place(t);
  if (!user) return;
  await user.poly('mount', 'memory', user.a);
  t.is((await user.as('fusermount3', '-u', user.a)).code, 0);
  t.deepEqual(await user.ls(), []);
  await user.poly('mount', 'memory', user.a);
  t.is((await run('umount', ['-i', user.a])).code, 0);
  t.deepEqual(await user.ls(), []);
});

test('the helpers work for users; -o remount,ro is up to the service, rw again as well', async (t) => {
  const user = await place(t);
  if (!user) return;
  const helper = (name: string, ...args: string[]): Promise<Ended> => user.as(join(installed, name), ...args);
  const mounted = await helper('mount.poly', 'memory', user.a, '-o', 'rw,noexec,nosuid,nodev,user');
  t.is(mounted.code, 0, mounted.stderr);
  t.is((await helper('mount.poly', 'memory', user.a, '-o', 'remount,ro')).code, 0);
  t.regex((await user.sh('touch "$A/f"')).stderr, /Read-only file system/);
  t.is((await helper('mount.poly', 'memory', user.a, '-o', 'remount,rw')).code, 0);
  t.is((await user.sh('touch "$A/f"')).code, 0);
  t.deepEqual(await helper('umount.poly', user.a), { code: 0, stdout: '', stderr: '' });
});

test('what users may not is one line that says why', async (t) => {
  const user = await place(t);
  if (!user) return;
  if (!/^\s*user_allow_other/m.test(readFileSync(FUSE_CONF, 'utf8'))) {
    const other = await user.poly('mount', 'memory', user.a, '-o', 'allow_other');
    t.deepEqual(other, {
      code: 1,
      stdout: '',
      stderr:
        "poly: option allow_other: needs the line 'user_allow_other' in /etc/fuse.conf for ordinary users\n",
    });
  }
  t.is((await user.poly('start')).code, 0);
  const foreign = await user.poly('mount', 'memory', '/usr');
  t.is(foreign.code, 1);
  t.regex(foreign.stderr, /^poly: \/usr: fusermount3: [^\n]+\n$/);
  t.deepEqual(await user.ls(), []);
  await user.poly('mount', 'memory', user.a, '-o', 'ro');
  const remount = await user.poly('mount', 'memory', user.a, '-o', 'remount,rw');
  t.deepEqual(
    [remount.code, remount.stderr],
    [1, `poly: ${user.a}: mounted read-only; only root can change that\n`],
  );
  const busy = user.sh('cd "$A" && sleep 3');
  await user.sh('sleep 0.5');
  const umount = await user.poly('umount', user.a);
  t.is(umount.code, 32);
  t.regex(umount.stderr, /^poly: \S+\/a: is busy [^\n]*\n$/);
  await busy;
});

test('without fusermount3 a user is told what to install', async (t) => {
  const user = await place(t);
  if (!user) return;
  const hide =
    'mount -t tmpfs none /mnt && touch /mnt/f && mount --bind /mnt/f /usr/bin/fusermount3 && exec "$@"';
  const become = ['setpriv', `--reuid=${String(NOBODY)}`, `--regid=${String(NOBODY)}`, '--clear-groups'];
  const args = ['--mount', '--propagation', 'private', 'sh', '-c', hide, 'sh', ...become];
  const ended = await run('unshare', [...args, process.execPath, poly, 'mount', 'memory', user.a]);
  t.deepEqual(ended, {
    code: 2,
    stdout: '',
    stderr: 'poly: fusermount3: not found; ordinary users need it to mount (apt install fuse3)\n',
  });
});
