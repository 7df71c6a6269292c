/** The mount(8) helper protocol as far as it needs no daemon: arguments, exit status, the launcher. */
import { cpSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { ownOptions, parseArguments } from '../../mount-helpers/helper.ts';
import { type Ended, isOneLine, run, temporaryDirectory } from '../server/cli_harness.ts';
import { installedHelpers, launcher } from './installed.ts';

test('arguments come in any order, letters and values joined or not', (t) => {
  const parsed = parseArguments(
    ['memory', '-sn', '/mnt', '-oro,nofail', '-o', 'size=1m', '-N', '42', '-t', 'fuse.poly', '-v'],
    'sfnv',
    '',
  );
  t.deepEqual(parsed.operands, ['memory', '/mnt']);
  t.deepEqual([...parsed.flags].sort(), ['n', 's', 'v']);
  t.deepEqual(parsed.options, ['ro,nofail', 'size=1m']);
  t.is(parsed.namespace, '/proc/42/ns/mnt');
  t.is(parseArguments(['-N', '/proc/9/fd/4'], '', '').namespace, '/proc/9/fd/4');
  t.deepEqual(parseArguments(['--', '-odd', '/mnt'], '', '').operands, ['-odd', '/mnt']);
});

test('what the kernel and libmount add to options is dropped', (t) => {
  const list =
    'rw,nosuid,user_id=0,group_id=0,default_permissions,allow_other,max_read=4096,uhelper=poly,size=1m';
  t.is(ownOptions(list), 'rw,nosuid,allow_other,size=1m');
});

const bare = { POLY_RUN_DIR: '/nonexistent/poly' };
const installed = installedHelpers();

function helper(name: string, args: string[]): Promise<Ended> {
  return run(join(installed, name), args, bare);
}

const misuse: [name: string, args: string[], code: number, stderr: RegExp][] = [
  ['mount.poly', [], 1, /^mount\.poly: usage: mount\.poly SPEC DIR/],
  ['mount.poly', ['memory'], 1, /^mount\.poly: usage: /],
  ['mount.poly', ['memory', '/tmp', '/extra'], 1, /^mount\.poly: usage: /],
  ['mount.poly', ['memory', '/tmp', '-x'], 1, /^mount\.poly: -x: no such option/],
  ['mount.poly', ['memory', '/tmp', '-o'], 1, /^mount\.poly: -o: needs a value/],
  ['mount.poly', ['memory', '/tmp', '-o', 'rx'], 1, /^mount\.poly: unknown mount option: rx/],
  ['mount.poly', ['memory', '/nonexistent'], 1, /^mount\.poly: \/nonexistent: no such file/],
  ['mount.fuse.poly', ['memory', '/nonexistent', '-t', 'fuse.poly'], 1, /^mount\.poly: \/nonexistent: /],
  ['mount.poly', ['memory', '/tmp', '-o', 'remount,ro'], 32, /^mount\.poly: daemon: not running/],
  ['umount.poly', [], 1, /^umount\.poly: usage: umount\.poly DIR/],
  ['umount.poly', ['/nonexistent'], 1, /^umount\.poly: \/nonexistent: no such file/],
  ['umount.fuse.poly', ['/usr', '-t', 'fuse.poly'], 32, /^umount\.poly: \/usr: not mounted/],
];

for (const [name, args, code, stderr] of misuse) {
  test(`${name} ${args.join(' ')}: status ${String(code)}`, async (t) => {
    const ended = await helper(name, args);
    t.is(ended.code, code);
    t.regex(ended.stderr, stderr);
    t.true(isOneLine(ended.stderr), ended.stderr);
  });
}

const accepted =
  'defaults,auto,noauto,nofail,_netdev,user,users,x-systemd.automount,X-mount.mkdir,comment=a b';
const harmless: [why: string, args: string[]][] = [
  ['options for others', ['memory', '/tmp', '-f', '-o', accepted]],
  ['what mount(8) hands back', ['memory', '/tmp', '-f', '-o', 'rw,user_id=0,group_id=0,default_permissions']],
  ['sloppy', ['memory', '/tmp', '-fs', '-o', 'rx,size=big,ro']],
  ['no mtab', ['memory', '/tmp', '-f', '-n']],
  ['the type as a prefix', ['poly#memory', '/tmp', '-f']],
];

for (const [why, args] of harmless) {
  test(`accepted: ${why}`, async (t) => {
    t.deepEqual(await helper('mount.poly', args), { code: 0, stdout: '', stderr: '' });
  });
}

test('-f -v says what would be done and starts nothing', async (t) => {
  const ended = await helper('mount.poly', ['memory', '/tmp', '-fv']);
  t.deepEqual(ended, { code: 0, stdout: 'mount.poly: memory on /tmp would be mounted\n', stderr: '' });
});

test('the launcher works through links, with an empty environment, from anywhere', async (t) => {
  const directory = temporaryDirectory();
  symlinkSync(launcher, join(directory, 'first'));
  symlinkSync('first', join(directory, 'umount.fuse.poly'));
  const script = 'cd / && exec env -i "$0" /nonexistent';
  const ended = await run('sh', ['-c', script, join(directory, 'umount.fuse.poly')]);
  t.deepEqual(ended, {
    code: 1,
    stdout: '',
    stderr: 'umount.poly: /nonexistent: no such file or directory\n',
  });
  rmSync(directory, { recursive: true });
});

test('the launcher says what is missing: the build, or Node', async (t) => {
  const directory = temporaryDirectory();
  mkdirSync(join(directory, 'mount-helpers'));
  cpSync(launcher, join(directory, 'mount-helpers/mount.poly'));
  const copy = join(directory, 'mount-helpers/mount.poly');
  const unbuilt = await run(copy, ['memory', '/tmp']);
  t.is(unbuilt.code, 2);
  t.regex(unbuilt.stderr, /^mount\.poly: \S+\/dist\/mount-helpers\/mount\.js: not built yet .*\n$/);
  // A Node that install.sh found and that has gone since is looked for again.
  mkdirSync(join(directory, 'build'));
  writeFileSync(join(directory, 'build/node-path'), '/nonexistent/node\n');
  t.regex((await run(copy, ['memory', '/tmp'])).stderr, /not built yet/);
  rmSync(directory, { recursive: true });
});
