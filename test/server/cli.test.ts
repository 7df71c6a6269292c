import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import test from 'ava';
import type { MountInfo, StatsResult, StatusResult } from '../../server/protocol.ts';
import {
  failure,
  isOneLine,
  poly,
  run,
  runPoly,
  type StandIn,
  standInPolyd,
  temporaryDirectory,
} from './cli_harness.ts';

const nowhere = { POLY_RUN_DIR: '/nonexistent/poly' };

// --- Help and usage --------------------------------------------------------------------------------------------

const commands = ['mount', 'umount', 'ls', 'stat', 'run', 'status', 'start', 'stop', 'config'];

for (const command of ['', ...commands]) {
  test(`poly ${command} --help fits a screen of 24 lines by 80 columns`, async (t) => {
    const { code, stdout, stderr } = await runPoly([...(command ? [command] : []), '--help']);
    t.is(code, 0);
    t.is(stderr, '');
    const lines = stdout.trimEnd().split('\n');
    t.true(lines.length <= 24, `${String(lines.length)} lines`);
    for (const line of lines) t.true(line.length <= 80, line);
  });
}

test('poly --help names every command and the exit status', async (t) => {
  const { stdout } = await runPoly(['--help']);
  for (const command of commands) t.regex(stdout, new RegExp(`poly ${command}`));
  t.regex(stdout, /3 daemon not running/);
});

const misuse: [args: string[], stderr: RegExp][] = [
  [[], /^poly: which command\?/],
  [['frob'], /^poly: frob: no such command/],
  [['ls', '--frob'], /^poly: --frob: not known here \(see: poly ls --help\)/],
  [['ls', 'extra'], /^poly: extra: not known here/],
  [['mount'], /^poly: mount: an argument is missing \(see: poly mount --help\)/],
  [['mount', 'memory', '/tmp', '-o'], /^poly: -o: needs a value/],
  [['mount', 'memory', '/tmp', '-o', 'ro,rx'], /^poly: unknown mount option: rx/],
  [['mount', 'memory', '/tmp', '-o', 'size=big'], /^poly: option size=big: not a size/],
  [['mount', 'memory', '/tmp', '--pool', 'a b'], /^poly: option pool=a b: not a pool name/],
  [['mount', 'memory', '/nonexistent/dir'], /^poly: \/nonexistent\/dir: no such file or directory/],
  [['mount', 'memory', '/dev/null'], /^poly: \/dev\/null: not a directory/],
  [['mount', 'memory'], /^poly: memory: needs a directory/],
  [['mount', 'local:', '/tmp'], /^poly: local:: names no directory/],
  [['mount', 'local:./nonexistent', '/tmp'], /^poly: local:\.\/nonexistent: no such file or directory/],
  [['umount'], /^poly: umount: an argument is missing/],
  [['umount', '/nonexistent'], /^poly: \/nonexistent: no such file or directory/],
  [['umount', '/proc'], /^poly: \/proc: not a poly mount \(type proc\)/],
  [['run'], /^poly: run: which program\?/],
  [['run', '--'], /^poly: run: which program\?/],
  [['run', '--frob', 'true'], /^poly: --frob: not known here \(see: poly run --help\)/],
  [['stop', '--lazy', '--keep-mounts'], /^poly: stop: --lazy and --keep-mounts exclude each other/],
  [['config', 'frob'], /^poly: frob: must be one of "check"/],
  [['config', 'check', '/nonexistent.toml'], /^poly: \/nonexistent\.toml:1: cannot be read: ENOENT/],
];

for (const [args, stderr] of misuse) {
  test(`misuse: poly ${args.join(' ')}`, async (t) => {
    const ended = await runPoly(args, nowhere);
    t.is(ended.code, 1);
    t.is(ended.stdout, '');
    t.regex(ended.stderr, stderr);
    t.true(isOneLine(ended.stderr), ended.stderr);
  });
}

test('an unmounted directory: status 32', async (t) => {
  t.deepEqual(await runPoly(['umount', '/usr'], nowhere), {
    code: 32,
    stdout: '',
    stderr: 'poly: /usr: not mounted\n',
  });
});

test('--version is the package version', async (t) => {
  const { code, stdout } = await runPoly(['--version']);
  t.is(code, 0);
  t.regex(stdout, /^\d+\.\d+\.\d+\n$/);
});

for (const shell of ['bash', 'zsh']) {
  test(`poly completion ${shell} is a script that ${shell} can read`, async (t) => {
    const { code, stdout } = await runPoly(['completion', shell], { SHELL: '/bin/sh' });
    t.is(code, 0);
    t.is(stdout.startsWith('#compdef poly'), shell === 'zsh');
    if (shell === 'bash') t.is((await run('bash', ['-n', '-c', stdout])).code, 0);
  });
}

test('completion offers commands and options', async (t) => {
  t.true((await runPoly(['--get-yargs-completions', 'poly', 'st'])).stdout.split('\n').includes('status'));
  t.regex((await runPoly(['--get-yargs-completions', 'poly', 'mount', '--'])).stdout, /^--share$/m);
});

// --- Without a daemon ------------------------------------------------------------------------------------------

for (const args of [['ls'], ['stat'], ['status'], ['ls', '--json']]) {
  test(`poly ${args.join(' ')} without a daemon: status 3`, async (t) => {
    const ended = await runPoly(args, nowhere);
    t.is(ended.code, 3);
    t.is(ended.stderr, 'poly: daemon: not running in /nonexistent/poly (start it with: poly start)\n');
  });
}

test('poly status --json without a daemon says so in JSON', async (t) => {
  const ended = await runPoly(['status', '--json'], nowhere);
  t.deepEqual([ended.code, JSON.parse(ended.stdout), ended.stderr], [3, { running: false }, '']);
});

test('poly stop without a daemon is no error', async (t) => {
  t.deepEqual(await runPoly(['stop'], nowhere), { code: 0, stdout: 'not running\n', stderr: '' });
});

test('a run directory that others may enter is refused', async (t) => {
  const ended = await runPoly(['ls'], { POLY_RUN_DIR: '/tmp' });
  t.is(ended.code, 1);
  t.regex(ended.stderr, /^poly: run directory \/tmp: .*\n$/);
});

test('a daemon that cannot start: status 2 and its own reason', async (t) => {
  const directory = temporaryDirectory();
  const ended = await runPoly(['start'], { POLY_RUN_DIR: directory, POLY_ADDON: '/nonexistent.node' });
  t.is(ended.code, 2);
  t.regex(ended.stderr, /^poly: daemon: cannot be started: .*\/nonexistent\.node/);
  t.true(isOneLine(ended.stderr), ended.stderr);
  rmSync(directory, { recursive: true });
});

// --- With a stand-in daemon ------------------------------------------------------------------------------------

const mounts: MountInfo[] = [
  {
    path: '/mnt/b',
    spec: 'memory:x',
    type: 'memory',
    source: 'memory:x',
    service: 2,
    instance: 7,
    pool: 'builds',
    outcome: 'shared',
    shares: ['/mnt/a'],
    options: {},
    readOnly: true,
    state: 'recovering',
    device: '0:45',
    mountId: 90,
    since: '2026-01-01T00:00:00Z',
  },
  {
    path: '/mnt/a',
    spec: 'local:/srv/data',
    type: 'local',
    source: 'local:/srv/data',
    service: 1,
    instance: 1,
    pool: null,
    outcome: 'new-service',
    shares: [],
    options: {},
    readOnly: false,
    state: 'mounted',
    device: '0:44',
    mountId: 89,
    since: '2026-01-01T00:00:00Z',
  },
];

const status: StatusResult = {
  pid: 4242,
  version: '0.1.0',
  startedAt: new Date(Date.now() - 65_000).toISOString(),
  runDir: '/run/poly',
  keeper: { pid: 4243, fds: 12, names: 8, dropped: 0, restarts: 0 },
  services: [
    {
      id: 1,
      pid: 4244,
      pool: null,
      state: 'running',
      restarts: 2,
      startedAt: new Date(Date.now() - 5_000).toISOString(),
      rss: 50 * 1024 * 1024,
      threads: 9,
      mounts: 1,
    },
  ],
  table: { entries: 1, capacity: 1024 },
};

const histogram = new Array<number>(12).fill(0);
histogram[11] = 10;
const stats: StatsResult = {
  silent: [],
  services: [
    {
      service: 1,
      pool: null,
      pid: 4244,
      threads: 4,
      threadsBusy: 1,
      requests: 11,
      instances: [
        {
          path: '/mnt/a',
          instance: 1,
          nodes: 3,
          openFiles: 1,
          lendableFiles: 1,
          locks: 0,
          parkedLockWaits: 2,
          ops: [
            { op: 'lookup', count: 10, errors: 4, totalNs: 30_000, histogram },
            { op: 'never', count: 0, errors: 0, totalNs: 0, histogram: [] },
          ],
        },
      ],
      clients: [
        { client: 1, pid: 71, uid: 0, openFiles: 2, calls: 5, declined: 0, command: 'quiet' },
        {
          client: 2,
          pid: 72,
          uid: 1000,
          openFiles: 0,
          calls: 10,
          declined: 3,
          instances: [1, 4],
          totalNs: 30_000,
          histogram,
          command: 'a\nb',
        },
      ],
    },
  ],
};

async function standIn(): Promise<StandIn> {
  return standInPolyd({
    status: () => status,
    stats: () => stats,
    'mount.list': () => mounts,
  });
}

test('poly ls: a table sorted by path, with the outcome of each mount', async (t) => {
  const daemon = await standIn();
  const { code, stdout, stderr } = await runPoly(['ls'], daemon.env);
  daemon.close();
  t.deepEqual([code, stderr], [0, '']);
  const [head, first, second] = stdout.split('\n').map((line) => line.split(/ {2,}/).join('|'));
  t.is(head, 'PATH|FILESYSTEM|TYPE|SERVICE|INSTANCE|POOL|OUTCOME|MODE|STATE|SHARES');
  t.is(first, '/mnt/a|local:/srv/data|local|1|1|-|new-service|rw|mounted|-');
  t.is(second, '/mnt/b|memory:x|memory|2|7|builds|shared|ro|recovering|/mnt/a');
});

test('poly ls --json is what the daemon said', async (t) => {
  const daemon = await standIn();
  const { stdout } = await runPoly(['ls', '--json'], daemon.env);
  daemon.close();
  t.deepEqual(
    (JSON.parse(stdout) as MountInfo[]).map((mount) => mount.path),
    ['/mnt/a', '/mnt/b'],
  );
});

test('poly status: daemon, keeper, services', async (t) => {
  const daemon = await standIn();
  const { code, stdout } = await runPoly(['status'], daemon.env);
  const json = await runPoly(['status', '--json'], daemon.env);
  daemon.close();
  t.is(code, 0);
  t.regex(stdout, /^daemon {3}version 0\.1\.0, pid 4242, up \d+s$/m);
  t.regex(stdout, /^mounts {3}1 of 1024 entries$/m);
  t.regex(stdout, /^ +1 +4244 +- +running +1 +2 +9 +50M +\d+s$/m);
  t.like(JSON.parse(json.stdout), { running: true, pid: 4242 });
});

test('poly stat: counts, errors, mean and quantiles of what happened', async (t) => {
  const daemon = await standIn();
  const { stdout } = await runPoly(['stat'], daemon.env);
  await runPoly(['stat', '/mnt//a/'], daemon.env);
  daemon.close();
  t.regex(
    stdout,
    /^\/mnt\/a: service 1 \(1 of 4 threads busy\), 3 nodes, 1 open file \(1 lendable\), 0 locks, 2 waiting for locks$/m,
  );
  t.regex(stdout, /^lookup +10 +4 +3\.0us +3\.1us +4\.1us$/m);
  t.notRegex(stdout, /never/);
  t.deepEqual(daemon.calls.at(-1), { method: 'stats', params: { path: '/mnt/a' } });
});

test('poly stat --clients: attached processes, the busiest first', async (t) => {
  const daemon = await standIn();
  const { stdout } = await runPoly(['stat', '--clients', '/mnt/a'], daemon.env);
  const json = await runPoly(['stat', '--clients', '--json'], daemon.env);
  daemon.close();
  const [head, first, second, ...rest] = stdout.split('\n').map((line) => line.trim().split(/ +/).join('|'));
  t.is(head, 'PID|COMMAND|UID|SERVICE|INSTANCES|FILES|CALLS|DECLINED|MEAN|P99');
  t.is(first, '72|a\\012b|1000|1|1,4|0|10|3|3.0us|4.1us');
  t.is(second, '71|quiet|0|1|-|2|5|0|-|-');
  t.deepEqual(rest, ['']);
  t.deepEqual(
    (JSON.parse(json.stdout) as { pid: number; service: number }[]).map(({ pid, service }) => [pid, service]),
    [
      [72, 1],
      [71, 1],
    ],
  );
});

test('poly stat --clients with nobody attached is a table without rows', async (t) => {
  const daemon = await standInPolyd({ stats: () => ({ services: [], silent: [] }) });
  const { code, stdout, stderr } = await runPoly(['stat', '--clients'], daemon.env);
  daemon.close();
  t.deepEqual([code, stderr], [0, '']);
  t.regex(stdout, /^PID {2}COMMAND {2}UID[^\n]*\n$/);
});

test("the daemon's error is shown as it is, with the exit status of its kind", async (t) => {
  const daemon = await standInPolyd({ stats: () => failure('ENOENT', '/mnt/x: not mounted') });
  const ended = await runPoly(['stat', '/mnt/x'], daemon.env);
  daemon.close();
  t.deepEqual(ended, { code: 2, stdout: '', stderr: 'poly: /mnt/x: not mounted\n' });
});

test('a daemon that hangs up: one line', async (t) => {
  const daemon: StandIn = await standInPolyd({
    'mount.list': () => {
      daemon.close();
      return [];
    },
  });
  const ended = await runPoly(['ls'], daemon.env);
  t.is(ended.code, 2);
  t.true(isOneLine(ended.stderr), ended.stderr);
});

test('a reader that goes away early is no error', async (t) => {
  const many = Array.from(
    { length: 2000 },
    (_, i) => ({ ...mounts[0], path: `/mnt/${String(i)}` }) as MountInfo,
  );
  const daemon = await standInPolyd({ 'mount.list': () => many });
  const child = spawn('sh', ['-c', '"$0" "$1" ls; echo "status $?" >&2', process.execPath, poly], {
    env: { ...process.env, ...daemon.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout.destroy();
  let stderr = '';
  for await (const chunk of child.stderr) stderr += String(chunk);
  daemon.close();
  t.is(stderr, 'status 0\n');
});

test('poly start with a daemon running says so', async (t) => {
  const daemon = await standIn();
  const ended = await runPoly(['start'], daemon.env);
  daemon.close();
  t.deepEqual(ended, { code: 0, stdout: 'already running: pid 4242, run directory /run/poly\n', stderr: '' });
});

test('poly stop --keep-mounts unmounts nothing', async (t) => {
  // A pid that is no process: the daemon "has ended" as soon as it is asked for.
  const daemon = await standInPolyd({ status: () => ({ ...status, pid: 0x7ffffffe }), stop: () => ({}) });
  const ended = await runPoly(['stop', '--keep-mounts'], daemon.env);
  daemon.close();
  t.deepEqual(ended, { code: 0, stdout: 'stopped; mounts go on\n', stderr: '' });
  t.deepEqual(daemon.calls.at(-1), { method: 'stop', params: { mounts: 'keep' } });
});
