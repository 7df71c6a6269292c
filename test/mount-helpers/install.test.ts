/** What scripts/install.sh puts where, and what systemd and man think of it. */
import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import anyTest, { type TestFn } from 'ava';
import { root, run, runPoly, temporaryDirectory } from '../server/cli_harness.ts';

const test = anyTest as TestFn<{ stage: string }>;

function has(program: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

function script(
  name: string,
  stage: string,
  args: string[] = [],
): Promise<{ code: number | null; stderr: string }> {
  return run('bash', [join(root, 'scripts', name), ...args], { DESTDIR: stage });
}

/** Every file and link below, with its content or target. */
function contents(directory: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    const path = join(directory, name);
    const stat = lstatSync(path);
    if (stat.isSymbolicLink()) found[name] = `-> ${readlinkSync(path)}`;
    else if (stat.isFile()) found[name] = readFileSync(path, 'utf8');
  }
  return found;
}

test.before(async (t) => {
  const stage = temporaryDirectory();
  t.context = { stage };
  const { code, stderr } = await script('install.sh', stage);
  t.is(code, 0, stderr);
});

test.after.always((t) => {
  rmSync(t.context.stage, { recursive: true, force: true });
});

test.beforeEach((t) => {
  t.truthy(t.context.stage);
});

test.serial(
  'installed: the command, the library, the four helpers, units, tmpfiles.d, man pages, completion',
  (t) => {
    const files = contents(t.context.stage);
    for (const name of ['mount.poly', 'umount.poly', 'mount.fuse.poly', 'umount.fuse.poly']) {
      t.is(files[`sbin/${name}`], `-> ${join(root, 'mount-helpers/mount.poly')}`);
    }
    t.is(files['usr/local/bin/poly'], `-> ${join(root, 'server/bin/poly.js')}`);
    t.is(
      files['usr/local/lib/polytropon/libpoly-preload.so'],
      `-> ${join(root, 'build/native/preload/libpoly-preload.so')}`,
    );
    const local = [
      'lib/systemd/system/poly.service',
      'lib/systemd/system/poly@.service',
      'lib/systemd/user/poly.service',
      'lib/tmpfiles.d/poly.conf',
      'share/man/man1/poly.1',
      'share/man/man5/poly.toml.5',
      'share/man/man8/mount.poly.8',
      'share/man/man8/poly-keeper.8',
      'share/man/man8/polyd.8',
      'share/bash-completion/completions/poly',
      'share/zsh/site-functions/_poly',
    ];
    for (const name of local) t.truthy(files[`usr/local/${name}`], name);
    t.is(Object.keys(files).length, local.length + 6);
    for (const [name, text] of Object.entries(files)) t.notRegex(text, /@(NODE|ROOT)@/, name);
  },
);

test.serial('installing again changes nothing; uninstalling leaves nothing', async (t) => {
  const stage = temporaryDirectory();
  const options = ['--prefix=/opt/poly', '--sbindir=/usr/sbin'];
  t.is((await script('install.sh', stage, options)).code, 0);
  const first = contents(stage);
  t.truthy(first['opt/poly/bin/poly']);
  t.is((await script('install.sh', stage, options)).code, 0);
  t.deepEqual(contents(stage), first);
  t.is((await script('uninstall.sh', stage, options)).code, 0);
  t.deepEqual(contents(stage), {});
  t.is((await script('uninstall.sh', stage, options)).code, 0);
  rmSync(stage, { recursive: true });
});

test.serial('the installed command and helpers find their checkout', async (t) => {
  const { stage } = t.context;
  const version = await run(join(stage, 'usr/local/bin/poly'), ['--version']);
  t.is(version.code, 0, version.stderr);
  const helper = await run(join(stage, 'sbin/mount.poly'), ['memory', '/tmp', '-f']);
  t.deepEqual(helper, { code: 0, stdout: '', stderr: '' });
});

test.serial('wrong arguments are one line', async (t) => {
  for (const name of ['install.sh', 'uninstall.sh']) {
    const { code, stderr } = await script(name, t.context.stage, ['--frob']);
    t.deepEqual([code, stderr], [1, `${name}: --frob: not known (see --help)\n`]);
  }
});

const systemdTest = has('systemd-analyze') ? test.serial : test.skip;

systemdTest('systemd-analyze verify has nothing to say about the units', async (t) => {
  const runtime = temporaryDirectory();
  const units = join(t.context.stage, 'usr/local/lib/systemd');
  // verify wants an instance of a template; the man pages are installed only later.
  mkdirSync(join(runtime, 'units'));
  execFileSync('cp', [join(units, 'system/poly@.service'), join(runtime, 'units/poly@web.service')]);
  const cases = [
    ['--man=no', join(units, 'system/poly.service')],
    ['--man=no', join(units, 'system/poly.service'), join(runtime, 'units/poly@web.service')],
    ['--man=no', '--user', join(units, 'user/poly.service')],
  ];
  for (const args of cases) {
    const ended = await run('systemd-analyze', ['verify', ...args], { XDG_RUNTIME_DIR: runtime });
    t.deepEqual(ended, { code: 0, stdout: '', stderr: '' }, args.join(' '));
  }
  rmSync(runtime, { recursive: true });
});

test.serial('units keep services alive and hide neither /dev/fuse nor the mounts', (t) => {
  for (const kind of ['system', 'user']) {
    const text = readFileSync(join(t.context.stage, `usr/local/lib/systemd/${kind}/poly.service`), 'utf8');
    const settings = text.split('\n').filter((line) => /^[A-Z]/.test(line));
    for (const needed of [
      'Type=notify',
      'KillMode=process',
      'Restart=always',
      'OOMPolicy=continue',
      'RuntimeDirectory=poly',
      'RuntimeDirectoryPreserve=yes',
      'Delegate=yes',
    ]) {
      t.true(settings.includes(needed), `${kind}: ${needed}`);
    }
    const harmful =
      /^(MemoryDenyWriteExecute|Private|Protect|NoNewPrivileges|DynamicUser|RootDirectory|ReadOnlyPaths)/;
    t.deepEqual(
      settings.filter((line) => harmful.test(line)),
      [],
    );
  }
});

const manTest = has('man') ? test.serial : test.skip;

manTest('man pages format without warnings and name every option of the help', async (t) => {
  const pages = join(root, 'mount-helpers/man');
  for (const page of readdirSync(pages)) {
    const ended = await run('man', ['--warnings', '-l', join(pages, page)], {
      MANWIDTH: '80',
      LC_ALL: 'C.UTF-8',
    });
    t.deepEqual([ended.code, ended.stderr], [0, ''], page);
  }
  const manual = readFileSync(join(pages, 'poly.1'), 'utf8').replaceAll('\\-', '-');
  for (const command of ['mount', 'umount', 'ls', 'stat', 'status', 'start', 'stop', 'config']) {
    const { stdout } = await runPoly([command, '--help']);
    for (const option of stdout.match(/--[a-z-]+/g) ?? []) {
      if (option !== '--help' && option !== '--version')
        t.true(manual.includes(option), `${command} ${option}`);
    }
  }
});

test.serial('the completion files are what `poly completion` prints', async (t) => {
  for (const [shell, name] of [
    ['bash', 'poly.bash'],
    ['zsh', '_poly'],
  ] as const) {
    const { stdout } = await runPoly(['completion', shell]);
    t.is(readFileSync(join(root, 'mount-helpers/completion', name), 'utf8'), stdout);
  }
});

const tmpfilesTest = has('systemd-tmpfiles') && process.geteuid?.() === 0 ? test.serial : test.skip;

tmpfilesTest('tmpfiles.d makes a run directory that others may only search', async (t) => {
  const { stage } = t.context;
  const file = join(stage, 'usr/local/lib/tmpfiles.d/poly.conf');
  const ended = await run('systemd-tmpfiles', ['--create', `--root=${stage}`, file]);
  t.is(ended.code, 0, ended.stderr);
  t.is(lstatSync(join(stage, 'run/poly')).mode & 0o777, 0o711);
  t.true(existsSync(join(stage, 'etc/poly')));
  rmSync(join(stage, 'run'), { recursive: true });
  rmSync(join(stage, 'etc'), { recursive: true });
});
