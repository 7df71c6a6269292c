/** `poly run` without mounts: which program it runs, what it says about it, and what the program finds. */
import test, { type ExecutionContext } from 'ava';
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { constants } from 'node:os';
import { delimiter, join } from 'node:path';
import { findProgram, gainedPrivilege, obstacleOf, scriptInterpreter } from '../../server/cli/program.ts';
import { splitRun } from '../../server/cli/run.ts';
import { addonPath } from '../../server/native.ts';
import { isOneLine, poly, runPoly } from './cli_harness.ts';
import { Site, temporary, until } from './helpers.ts';

const root = process.geteuid?.() === 0;
const withAddon = existsSync(addonPath) ? test.serial : test.serial.skip;

// --- Taking the command line apart -----------------------------------------------------------------------------

test("options end at the program's name or at --, and nothing after that is ours", (t) => {
  const cases: [string, string, string][] = [
    ['run ls', 'run', 'ls'],
    ['run ls -l --check -- x', 'run', 'ls -l --check -- x'],
    ['run -- ls -l', 'run', 'ls -l'],
    ['run --check -- ls', 'run --check', 'ls'],
    ['run --check ls', 'run --check', 'ls'],
    ['run -- -- x', 'run', '-- x'],
    ['run -- --check', 'run', '--check'],
    ['run - x', 'run', '- x'],
    ['run --help', 'run --help', ''],
    ['run', 'run', ''],
    ['run --', 'run', ''],
  ];
  for (const [line, own, words] of cases) {
    t.deepEqual(
      splitRun(line.split(' ')),
      { own: own.split(' '), words: words ? words.split(' ') : [] },
      line,
    );
  }
  t.deepEqual(splitRun(['run', '', 'x']), { own: ['run'], words: ['', 'x'] });
});

// --- Finding a program -----------------------------------------------------------------------------------------

function program(
  directory: string,
  name: string,
  content: string | Buffer = '#!/bin/sh\n',
  mode = 0o755,
): string {
  const path = join(directory, name);
  writeFileSync(path, content);
  chmodSync(path, mode);
  return path;
}

function codeOf(work: () => unknown): string {
  try {
    return String(work());
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : String(error);
  }
}

test('a program is found as execvp(3) finds it', (t) => {
  const base = temporary(t);
  const [a, b] = [join(base, 'a'), join(base, 'b')];
  for (const directory of [a, b]) mkdirSync(directory);
  const both = program(b, 'both');
  program(a, 'plain', '', 0o644);
  mkdirSync(join(a, 'directory'));
  mkdirSync(join(a, 'both'));
  const path = [a, b, join(base, 'missing'), join(base, 'a/plain')].join(delimiter);
  t.is(findProgram('both', path), both);
  t.is(findProgram(both, ''), both);
  t.is(
    codeOf(() => findProgram('nothing', path)),
    'ENOENT',
  );
  t.is(
    codeOf(() => findProgram('directory', path)),
    'EACCES',
  );
  t.is(
    codeOf(() => findProgram('plain', path)),
    'EACCES',
  );
  t.is(
    codeOf(() => findProgram(join(a, 'plain'), path)),
    'EACCES',
  );
  t.is(
    codeOf(() => findProgram(join(a, 'directory'), path)),
    'EACCES',
  );
  t.is(
    codeOf(() => findProgram('', path)),
    'EACCES',
  );
  t.is(findProgram('sh', undefined), '/bin/sh');
});

// --- What stands in the way ------------------------------------------------------------------------------------

/** A minimal x86-64 ELF file with these program headers. */
function elf(loader: string | undefined, change: (header: Buffer) => void = () => undefined): Buffer {
  const header = Buffer.alloc(64);
  header.write('\x7fELF', 'latin1');
  header.set([2, 1, 1], 4);
  header.writeUInt16LE(3, 16);
  header.writeUInt16LE(62, 18);
  header.writeBigUInt64LE(64n, 32);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(2, 56);
  change(header);
  const headers = Buffer.alloc(112);
  headers.writeUInt32LE(1, 0);
  headers.writeUInt32LE(loader === undefined ? 1 : 3, 56);
  const text = Buffer.from(`${loader ?? ''}\0`);
  headers.writeBigUInt64LE(176n, 64);
  headers.writeBigUInt64LE(BigInt(text.length), 88);
  return Buffer.concat([header, headers, text]);
}

const GLIBC = '/lib64/ld-linux-x86-64.so.2';
const never = () => false;

test('obstacles: static, other libraries, other machines, damaged files', (t) => {
  const directory = temporary(t);
  const reason = (content: string | Buffer) => obstacleOf(program(directory, 'p', content), never)?.reason;
  t.is(reason(elf(GLIBC)), undefined);
  t.is(reason(elf(undefined)), 'statically linked');
  t.is(reason(elf(undefined, (header) => header.writeUInt16LE(0, 56))), 'statically linked');
  t.is(reason(elf('/lib/ld-musl-x86_64.so.1')), 'another C library (/lib/ld-musl-x86_64.so.1)');
  t.is(
    reason(
      elf(GLIBC, (header) => {
        header.writeUInt8(1, 4);
        header.writeUInt16LE(3, 18);
      }),
    ),
    'another architecture (32-bit x86)',
  );
  t.is(reason(elf(GLIBC, (header) => header.writeUInt8(1, 4))), 'another architecture (x32)');
  t.is(reason(elf(GLIBC, (header) => header.writeUInt16LE(183, 18))), 'another architecture (ARM)');
  for (const length of [4, 20, 63, 64, 100, 175]) t.is(reason(elf(GLIBC).subarray(0, length)), 'damaged');
  t.is(reason(elf(GLIBC, (header) => header.writeBigUInt64LE(1n << 60n, 32))), 'damaged');
  t.is(reason(elf(GLIBC, (header) => header.writeUInt16LE(1, 54))), 'damaged');
});

test('a loader that would fail with the library is not given it', (t) => {
  const directory = temporary(t);
  const harmless = (content: Buffer) => obstacleOf(program(directory, 'p', content), never)?.harmless;
  t.is(harmless(elf(undefined)), true);
  t.is(harmless(elf('/lib/ld-musl-x86_64.so.1')), false);
  t.is(harmless(elf(GLIBC, (header) => header.writeUInt16LE(183, 18))), false);
});

test('any bytes are some answer', (t) => {
  const directory = temporary(t);
  for (let round = 0; round < 300; round++) {
    const bytes = elf(GLIBC);
    for (let i = 0; i < 6; i++) bytes[4 + Math.floor(Math.random() * 172)] = Math.floor(Math.random() * 256);
    t.notThrows(() => obstacleOf(program(directory, 'p', bytes), never), bytes.toString('hex'));
  }
});

test('scripts are as their interpreters are', (t) => {
  const directory = temporary(t);
  const still = program(directory, 'static', elf(undefined));
  const script = program(directory, 'script', `#! ${still} -x\necho\n`);
  t.is(obstacleOf(script, never)?.reason, 'statically linked');
  t.is(obstacleOf(program(directory, 'outer', `#!${script}`), never)?.reason, 'statically linked');
  t.is(obstacleOf(program(directory, 'shell', '#!/bin/sh\n'), never), undefined);
  t.is(obstacleOf(program(directory, 'none', 'echo no first line\n'), never), undefined);
  const loop = join(directory, 'loop');
  t.is(obstacleOf(program(directory, 'loop', `#!${loop}\n`), never)?.reason, 'too many interpreters');
  t.regex(obstacleOf(program(directory, 'lost', '#!/nonexistent/x\n'), never)?.reason ?? '', /^not readable/);
  t.is(scriptInterpreter(Buffer.from('#!\t/bin/sh -e\n')), '/bin/sh');
  t.is(scriptInterpreter(Buffer.from('#!\n')), undefined);
  t.is(scriptInterpreter(Buffer.from('')), undefined);
});

test('privilege that the program would gain', (t) => {
  t.is(gainedPrivilege({ mode: 0o104755, uid: 0, gid: 0 }, 1000, 1000), 'set-user-ID');
  t.is(gainedPrivilege({ mode: 0o104755, uid: 0, gid: 0 }, 0, 0), undefined);
  t.is(gainedPrivilege({ mode: 0o102755, uid: 0, gid: 5 }, 1000, 1000), 'set-group-ID');
  t.is(gainedPrivilege({ mode: 0o102745, uid: 0, gid: 5 }, 1000, 1000), undefined);
  t.is(gainedPrivilege({ mode: 0o100755, uid: 0, gid: 5 }, 1000, 1000), undefined);
  const file = program(temporary(t), 'p', elf(GLIBC));
  // What capabilities a file has does not matter to root, who has them all.
  t.is(obstacleOf(file, () => true)?.reason, root ? undefined : 'file capabilities');
});

// --- Running it ------------------------------------------------------------------------------------------------

/** What a program finds: its words, variables, signals, descriptors and limits. */
const REPORT = `
import json, os, resource, signal, sys
def status(name):
    return [l.split()[1] for l in open('/proc/self/status') if l.startswith(name + ':')][0]
fds = sorted(int(n) for n in os.listdir('/proc/self/fd'))
fds = {n: [os.readlink(f'/proc/self/fd/{n}').split(':')[0], bool(os.get_blocking(n))] for n in fds if os.path.exists(f'/proc/self/fd/{n}')}
print(json.dumps({
    'argv': [os.fsencode(a).hex() for a in sys.argv[1:]],
    'preload': os.environ.get('LD_PRELOAD'), 'attach': os.environ.get('POLY_ATTACH'), 'odd': os.environb.get(b'ODD', b'').hex(),
    'ignored': status('SigIgn'), 'blocked': status('SigBlk'), 'nofile': resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    'fds': fds, 'cwd': os.getcwd()}))
`;

interface Report {
  argv: string[];
  preload: string | null;
  attach: string | null;
  odd: string;
  ignored: string;
  blocked: string;
  nofile: number;
  fds: Record<string, [string, boolean]>;
  cwd: string;
}

/** A library that can be preloaded and does nothing: any will do. */
const LIBRARY = '/lib/x86_64-linux-gnu/libm.so.6';

/** A running daemon over the real addon, and how commands find it and a library. */
async function place(t: ExecutionContext): Promise<{ site: Site; env: NodeJS.ProcessEnv }> {
  const site = new Site(t);
  await site.start();
  return { site, env: { ...site.env, POLY_PRELOAD: LIBRARY } };
}

withAddon('the program finds all as if it had been run without us, but for two variables', async (t) => {
  const { site, env } = await place(t);
  const script = program(temporary(t), 'report.py', REPORT);
  // Descriptors low and high, a gap, a pipe to another process; an argument and a variable that are no UTF-8.
  const report = (...prefix: string[]): Report => {
    const line = `ulimit -Sn 300; cd /usr; export ODD=$'\\xfe'
      "$@" python3 "$SCRIPT" '' 'a b' $'\\xff\\xfe' -- --check '*' 3</etc/hostname 4> >(cat) 12</dev/null 63</dev/null`;
    const { stdout, stderr, status } = spawnSync('bash', ['-c', line, 'bash', ...prefix], {
      encoding: 'utf8',
      timeout: 20_000,
      env: { ...env, SCRIPT: script, LD_PRELOAD: '' },
    });
    t.deepEqual([stderr, status], ['', 0]);
    return JSON.parse(stdout) as Report;
  };
  const plain = report();
  const ours = report(process.execPath, poly, 'run');
  t.deepEqual([ours.preload, ours.attach], [LIBRARY, site.dir.attachDir]);
  t.deepEqual({ ...ours, preload: plain.preload, attach: plain.attach }, plain);
  t.is(plain.nofile, 300);
  t.deepEqual(plain.argv, ['', '612062', 'fffe', '2d2d', '2d2d636865636b', '2a']);
  for (const number of [3, 4, 12, 63]) t.true(number in plain.fds, String(number));
});

withAddon("pipes stay as the caller has them: blocking or not, and a jobserver's both ends", async (t) => {
  const { env } = await place(t);
  const check = program(
    temporary(t),
    'check.py',
    `import os, subprocess, sys
r, w = os.pipe()
n, m = os.pipe()
os.set_blocking(m, False)
out = subprocess.run([*sys.argv[1:4], sys.executable, '-c',
    f'import os; print(os.get_blocking({r}), os.get_blocking({w}), os.get_blocking({m}), os.get_blocking(1))'],
    pass_fds=[r, w, m], stdout=subprocess.PIPE, check=True).stdout
print(out.decode().strip())`,
  );
  const ended = spawnSync('python3', [check, process.execPath, poly, 'run'], {
    encoding: 'utf8',
    env,
    timeout: 20_000,
  });
  t.is(ended.stdout, 'True True False True\n', ended.stderr);
});

withAddon("the exit status and the signal are the program's own, and so is the process", async (t) => {
  const { env } = await place(t);
  t.is((await runPoly(['run', 'sh', '-c', 'exit 42'], env)).code, 42);
  const child = spawn(process.execPath, [poly, 'run', 'sh', '-c', 'echo $$; exec sleep 60'], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
  await until('it runs', 10_000, () => text !== '');
  t.is(Number(text), child.pid ?? 0);
  child.kill('SIGTERM');
  await until('it ends', 5000, () => child.signalCode !== null);
  t.is(child.signalCode, 'SIGTERM');
  // Nobody but `yes` is left to take the SIGPIPE, which Node ignores.
  const piped = spawnSync(
    'bash',
    ['-c', '"$0" "$1" run yes | head -n 1; echo "${PIPESTATUS[0]}"', process.execPath, poly],
    {
      encoding: 'utf8',
      env,
      timeout: 20_000,
    },
  );
  t.is(piped.stdout, `y\n${String(128 + constants.signals.SIGPIPE)}\n`);
});

withAddon('LD_PRELOAD keeps what was there, and the library stands there once', async (t) => {
  const { env } = await place(t);
  const show = ['run', 'printenv', 'LD_PRELOAD'];
  const other = '/lib/x86_64-linux-gnu/libdl.so.2';
  t.is((await runPoly(show, { ...env, LD_PRELOAD: other })).stdout, `${LIBRARY}:${other}\n`);
  t.is((await runPoly(show, { ...env, LD_PRELOAD: `${other} ${LIBRARY}` })).stdout, `${LIBRARY}:${other}\n`);
  const nested = await runPoly(['run', process.execPath, poly, ...show], env);
  t.is(nested.stdout, `${LIBRARY}\n`, nested.stderr);
});

withAddon('what cannot be accelerated runs all the same, with one line that says why', async (t) => {
  const { env, site } = await place(t);
  const directory = temporary(t);
  const run = (more: NodeJS.ProcessEnv) => runPoly(['run', 'sh', '-c', 'echo ran'], { ...env, ...more });
  const nowhere = join(directory, 'nowhere');
  const cases: [NodeJS.ProcessEnv, RegExp][] = [
    [{ POLY_RUN_DIR: nowhere }, /: the daemon is not running in .*\/nowhere$/],
    [{ POLY_RUN_DIR: '/tmp' }, /: run directory \/tmp: mode 777 lets others in/],
    [{ POLY_PRELOAD: join(directory, 'missing.so') }, /missing\.so is missing$/],
    [{ POLY_PRELOAD: join(directory, 'a b.so') }, /a b\.so: a path with a blank or colon$/],
  ];
  for (const [more, reason] of cases) {
    const ended = await run(more);
    t.deepEqual([ended.code, ended.stdout], [0, 'ran\n']);
    t.true(isOneLine(ended.stderr), ended.stderr);
    t.regex(ended.stderr.trimEnd(), reason);
    t.regex(ended.stderr, /^poly: \S*\/sh: not accelerated: /);
  }
  const still = await runPoly(['run', 'busybox', 'sh', '-c', 'echo $POLY_ATTACH'], env);
  t.is(still.stdout, `${site.dir.attachDir}\n`);
  t.regex(still.stderr, /^poly: \/\S*busybox: not accelerated: statically linked\n$/);
});

withAddon('--check only tells', async (t) => {
  const { env } = await place(t);
  const fine = await runPoly(['run', '--check', 'sh', '-c', 'echo ran'], env);
  t.deepEqual([fine.code, fine.stderr], [0, '']);
  t.regex(fine.stdout, /^\/\S*\/sh: accelerated\n$/);
  const still = await runPoly(['run', '--check', '--', 'busybox'], env);
  t.deepEqual([still.code, still.stderr], [1, '']);
  t.regex(still.stdout, /busybox: through FUSE: statically linked\n$/);
});

withAddon('no such program: 127; no program: 126', async (t) => {
  const { env } = await place(t);
  const base = temporary(t);
  const plain = program(base, 'plain', 'x', 0o644);
  const bad = program(base, 'bad', '#!/nonexistent/interpreter\n');
  const cases: [string, number, string][] = [
    ['no-such-program', 127, 'poly: no-such-program: not found\n'],
    [join(base, 'none'), 127, `poly: ${base}/none: not found\n`],
    [plain, 126, `poly: ${plain}: permission denied\n`],
    [base, 126, `poly: ${base}: permission denied\n`],
  ];
  for (const [word, code, stderr] of cases) {
    t.deepEqual(await runPoly(['run', word], env), { code, stdout: '', stderr });
    t.deepEqual(await runPoly(['run', '--check', word], env), { code, stdout: '', stderr });
  }
  const lost = await runPoly(['run', bad], env);
  t.is(lost.code, 127);
  t.regex(lost.stderr, /^poly: .*: not accelerated: not readable[^\n]*\npoly: .*\/bad: not found\n$/);
});

const asUser = root && existsSync(addonPath) ? test.serial : test.serial.skip;

asUser(
  "root's daemon serves other users: set-user-ID and capabilities are theirs to be told of",
  async (t) => {
    const site = new Site(t);
    await site.start();
    const directory = temporary(t);
    chmodSync(directory, 0o755);
    const setuid = join(directory, 'setuid');
    const plain = join(directory, 'plain');
    for (const path of [setuid, plain]) copyFileSync('/bin/echo', path);
    chownSync(setuid, 0, 0);
    chmodSync(setuid, 0o4755);
    chmodSync(plain, 0o755);
    symlinkSync(LIBRARY, join(directory, 'library.so'));
    const capable = join(directory, 'capable');
    copyFileSync('/bin/echo', capable);
    const granted = spawnSync('python3', [
      '-c',
      `import os, struct, sys
os.setxattr(sys.argv[1], 'security.capability', struct.pack('<5I', 0x02000001, 1 << 10, 0, 0, 0))`,
      capable,
    ]);
    t.is(granted.status, 0, String(granted.stderr));
    const env = { ...process.env, POLY_RUN_DIR: site.dir.path, POLY_PRELOAD: join(directory, 'library.so') };
    const check = (file: string) => {
      const ids = ['--reuid', '1000', '--regid', '1000', '--clear-groups'];
      const args = [...ids, process.execPath, poly, 'run', '--check', file];
      return spawnSync('setpriv', args, { encoding: 'utf8', env, timeout: 20_000 });
    };
    t.is(check(plain).stdout, `${plain}: accelerated\n`, check(plain).stderr);
    t.is(check(setuid).stdout, `${setuid}: through FUSE: set-user-ID\n`);
    t.is(check(capable).stdout, `${capable}: through FUSE: file capabilities\n`);
    t.is((await runPoly(['run', '--check', setuid], env)).stdout, `${setuid}: accelerated\n`);
  },
);
