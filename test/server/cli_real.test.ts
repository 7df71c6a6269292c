/** `poly` with a real daemon and real mounts, as root. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import anyTest, { type ExecutionContext } from 'ava';
import type { MountInfo, StatsResult, StatusResult } from '../../server/protocol.ts';
import { type Ended, poly as polyScript, run, runPoly } from './cli_harness.ts';
import { missing, realSite } from './real.ts';

const why = missing();
const test = why === undefined ? anyTest.serial : anyTest.serial.skip;
if (why !== undefined)
  anyTest(`poly for real: skipped, ${why}`, (t) => {
    t.pass();
  });

interface Place {
  a: string;
  b: string;
  directory: string;
  poly: (...args: string[]) => Promise<Ended>;
  /** The same, left running. */
  start: (...args: string[]) => ChildProcess;
  sh: (script: string) => Promise<Ended>;
  ls: () => Promise<MountInfo[]>;
}

function place(t: ExecutionContext): Place {
  const { site, root: directory } = realSite(t);
  const [a = '', b = ''] = ['a', 'b'].map((name) => join(directory, name));
  for (const path of [a, b]) mkdirSync(path);
  const poly = (...args: string[]): Promise<Ended> => runPoly(args, site.env);
  return {
    a,
    b,
    directory,
    poly,
    start: (...args) => spawn(process.execPath, [polyScript, ...args], { env: site.env, stdio: 'ignore' }),
    sh: (script) => run('bash', ['-c', script], { ...site.env, A: a, B: b }),
    ls: async () => JSON.parse((await poly('ls', '--json')).stdout) as MountInfo[],
  };
}

test('mount starts the daemon and says so; the mount works; umount and stop end all', async (t) => {
  const { a, poly, sh, ls } = place(t);
  const mounted = await poly('mount', 'memory', a, '-o', 'size=10m');
  t.is(mounted.code, 0, mounted.stderr);
  t.is(mounted.stdout, `${a}: memory, service 1 (new-service)\n`);
  t.regex(mounted.stderr, /^poly: started the daemon \(pid \d+\)\n$/);
  t.is((await sh('echo data >"$A/f" && cat "$A/f"')).stdout, 'data\n');
  t.like((await ls())[0], {
    path: a,
    spec: 'memory',
    type: 'memory',
    outcome: 'new-service',
    state: 'mounted',
  });
  const { keeper, pid, services } = JSON.parse((await poly('status', '--json')).stdout) as StatusResult;
  t.deepEqual(await poly('umount', a), { code: 0, stdout: '', stderr: '' });
  t.deepEqual(await ls(), []);
  t.deepEqual(await poly('stop'), { code: 0, stdout: 'stopped\n', stderr: '' });
  for (const gone of [pid, services[0]?.pid ?? 0, keeper.pid]) await ended(t, gone);
  t.is((await poly('status')).code, 3);
});

async function ended(t: ExecutionContext, pid: number): Promise<void> {
  const wait = `for i in $(seq 100); do kill -0 ${String(pid)} 2>/dev/null || exit 0; sleep 0.05; done; exit 1`;
  t.is((await run('bash', ['-c', wait])).code, 0, `pid ${String(pid)} has not ended`);
}

test('the three outcomes of a mount request', async (t) => {
  const { a, b, poly, sh, ls } = place(t);
  await poly('mount', 'memory:tree', a);
  t.is((await poly('mount', 'memory:tree', a)).stdout, `${a}: memory:tree, service 1 (full-match)\n`);
  const other = await poly('mount', 'memory:other', a);
  t.is(other.code, 32);
  t.regex(other.stderr, /^poly: [^\n]*memory:tree[^\n]*\n$/);
  await sh('mkdir "$A/below" && echo 1 >"$A/file"');
  const shared = await poly('mount', 'memory:tree', join(a, 'below'), '--share');
  t.is(shared.stdout, `${join(a, 'below')}: memory:tree, service 1 (shared)\n`, shared.stderr);
  t.is((await sh('cat "$A/below/file"')).stdout, '1\n');
  t.is((await poly('mount', 'memory:tree', b)).stdout, `${b}: memory:tree, service 2 (new-service)\n`);
  t.deepEqual(
    (await ls()).map(({ path, outcome, service, shares }) => [path, outcome, service, shares]),
    [
      [a, 'new-service', 1, [join(a, 'below')]],
      [join(a, 'below'), 'shared', 1, [a]],
      [b, 'new-service', 2, []],
    ],
  );
  const busy = await poly('umount', a);
  t.is(busy.code, 32);
  t.is((await poly('stop')).code, 0);
});

test('stat counts what happened', async (t) => {
  const { a, poly, sh } = place(t);
  await poly('mount', 'memory', a);
  await sh('echo data >"$A/f"; cat "$A/f" "$A/nothing"');
  const text = await poly('stat', a);
  t.regex(text.stdout, /^create +1 +0 /m);
  t.regex(text.stdout, /^OPERATION +COUNT +ERRORS +MEAN +P50 +P99$/m);
  const stats = JSON.parse((await poly('stat', '--json')).stdout) as StatsResult;
  t.is(stats.services[0]?.instances[0]?.path, a);
});

test('stop names a mount that is busy and stops nothing; --keep-mounts keeps; --lazy ends all', async (t) => {
  const { a, poly, sh, ls } = place(t);
  await poly('mount', 'memory', a);
  const busy = sh('exec 3>"$A/f"; sleep 4; echo late >&3');
  await sh('until [ -e "$A/f" ]; do sleep 0.05; done');
  const refused = await poly('stop');
  t.is(refused.code, 32);
  t.is(refused.stderr, `poly: ${a}: is busy (files there are open, or a shell stands in it)\n`);
  t.is((await ls()).length, 1);
  t.is((await poly('stop', '--keep-mounts')).stdout, 'stopped; mounts go on\n');
  t.is((await busy).code, 0);
  t.is((await sh('cat "$A/f"')).stdout, 'late\n');
  t.regex((await poly('start')).stdout, /^started: pid \d+/);
  t.like((await ls())[0], { path: a, state: 'mounted' });
  const open = sh('exec 3>"$A/f"; touch "$A/ready"; sleep 2');
  await sh('until [ -e "$A/ready" ]; do sleep 0.05; done');
  t.is((await poly('stop', '--lazy')).stdout, 'stopped\n');
  await open;
});

test('a relative source is resolved; a mount at a dead or missing place is one line', async (t) => {
  const { a, directory, poly, sh, ls } = place(t);
  mkdirSync(join(directory, 'source'));
  writeFileSync(join(directory, 'source/f'), 'x\n');
  const here = await sh(`cd "$A/.." && "${process.execPath}" "${polyScript}" mount local:./source "$A"`);
  t.is(here.code, 0, here.stderr);
  t.is((await sh('cat "$A/f"')).stdout, 'x\n');
  t.is((await ls())[0]?.spec, `local:${directory}/source`);
  await poly('umount', a);
  rmSync(a, { recursive: true });
  const gone = await poly('mount', 'memory', a);
  t.deepEqual(gone, { code: 1, stdout: '', stderr: `poly: ${a}: no such file or directory\n` });
});

test('poly start --foreground stays until a signal ends it; mounts go on', async (t) => {
  const { a, poly, start, ls } = place(t);
  const foreground = start('start', '--foreground');
  while ((await poly('status')).code !== 0);
  t.regex((await poly('start', '--foreground')).stdout, /^already running: /);
  await poly('mount', 'memory', a);
  foreground.kill('SIGTERM');
  t.deepEqual(await once(foreground, 'exit'), [0, null]);
  t.is((await poly('status')).code, 3);
  await poly('start');
  t.like((await ls())[0], { path: a, state: 'mounted' });
});

test('commands at the same moment start one daemon', async (t) => {
  const { directory, poly, ls } = place(t);
  const paths = [1, 2, 3, 4].map((i) => join(directory, `m${String(i)}`));
  for (const path of paths) mkdirSync(path);
  const all = await Promise.all(paths.map((path) => poly('mount', 'memory', path)));
  for (const { code, stderr } of all) t.is(code, 0, stderr);
  t.deepEqual(
    (await ls()).map((mount) => mount.path),
    paths,
  );
  t.is(new Set(all.map(({ stderr }) => /pid (\d+)/.exec(stderr)?.[1]).filter(Boolean)).size, 1);
});
