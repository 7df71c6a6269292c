/** What programs of the fast path can reach of a daemon, and how the mount table follows what others mount. */
import test, { type ExecutionContext } from 'ava';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, lstatSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { native, type NativeMountTable } from '../../server/native.ts';
import type { StatsResult } from '../../server/protocol.ts';
import { checkRunDir, ensureRunDir, runDir } from '../../server/rundir.ts';
import { poly, run } from './cli_harness.ts';
import { Site, status, temporary, until } from './helpers.ts';
import { missing, mountReal, realSite, sh } from './real.ts';

const ATTACH_CLIENT = fileURLToPath(
  new URL('../../../build/native/test/server/attach-client', import.meta.url),
);

const reason = missing();
const real = (title: string, body: (t: ExecutionContext) => Promise<void>): void => {
  if (reason === undefined) test.serial(title, body);
  else test.serial.skip(`${title} (${reason})`, body);
};
const asRoot = process.geteuid?.() === 0 ? test : test.skip;

function modeOf(path: string): string {
  return (lstatSync(path).mode & 0o7777).toString(8);
}

// --- Directories -----------------------------------------------------------------------------------------------

test('an ordinary user has a run directory that nobody else can enter', (t) => {
  const dir = runDir(join(temporary(t), 'run'));
  // Ownership is not looked at before it is made.
  const uid = process.geteuid?.() === 0 ? 1 : process.geteuid?.();
  try {
    ensureRunDir(dir, uid);
  } catch {
    // Made by root for uid 1: it is not theirs.
  }
  t.is(modeOf(dir.path), '700');
});

asRoot("root's may be searched, but not listed or written", (t) => {
  const dir = runDir(join(temporary(t), 'run'));
  for (let round = 0; round < 2; round++) {
    ensureRunDir(dir);
    t.deepEqual([modeOf(dir.path), modeOf(dir.attachDir)], ['711', '755']);
  }
  for (const mode of [0o755, 0o733, 0o1777, 0o770]) {
    chmodSync(dir.path, mode);
    t.throws(
      () => {
        checkRunDir(dir);
      },
      { message: /lets others in \(need 711\)/ },
    );
  }
});

asRoot('a run directory of mode 0700 is widened, after its files have been closed to others', (t) => {
  const dir = runDir(temporary(t));
  const names = ['polyd.pid', 'polyd.log', 'service-3.log', 'service-3.sock', 'state.json', 'other'];
  for (const name of names) {
    writeFileSync(join(dir.path, name), '');
    chmodSync(join(dir.path, name), 0o666);
  }
  ensureRunDir(dir);
  t.is(modeOf(dir.path), '711');
  t.deepEqual(
    names.map((name) => modeOf(join(dir.path, name))),
    ['600', '600', '600', '600', '600', '666'],
  );
});

asRoot('a directory that was none of ours is left as it is', (t) => {
  const dir = runDir(temporary(t));
  writeFileSync(join(dir.path, 'letter.txt'), '');
  ensureRunDir(dir);
  t.is(modeOf(dir.path), '700');
  const other = runDir(temporary(t));
  symlinkSync('/tmp', other.attachDir);
  t.throws(
    () => {
      ensureRunDir(other);
    },
    { message: /attach/ },
  );
});

for (const umask of ['000', '022', '077']) {
  real(`files and sockets are for their owner only, except in attach: umask ${umask}`, async (t) => {
    const { site, root } = realSite(t, { UMASK: umask, NODE: process.execPath, POLY: poly });
    const started = await run('bash', ['-c', 'umask "$UMASK"; "$NODE" "$POLY" start'], site.env);
    t.is(started.code, 0, started.stderr);
    await mountReal(site, await site.connect(), join(root, 'a'), 'memory');
    const { attach, ...modes } = Object.fromEntries(
      readdirSync(site.dir.path).map((name) => [name, modeOf(join(site.dir.path, name))]),
    );
    t.deepEqual([modeOf(site.dir.path), attach], ['711', '755']);
    for (const name of ['control.sock', 'keeper.sock', 'polyd.pid', 'service-1.sock', 'state.json'])
      t.true(name in modes, name);
    for (const [name, mode] of Object.entries(modes)) t.is(mode, '600', name);
    t.is(modeOf(site.dir.tableSocket), '666');
  });
}

real('another user reaches the table, and nothing else', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  await mountReal(site, client, join(root, 'a'), 'memory');
  const tryAll = `
import os, socket, sys
def attempt(path, kind):
    try:
        s = socket.socket(socket.AF_UNIX, kind)
        s.connect(path)
        return len(socket.recv_fds(s, 10, 4)[1])
    except OSError as error:
        return type(error).__name__
d = sys.argv[1]
print(attempt(d + '/attach/table.sock', socket.SOCK_SEQPACKET), attempt(d + '/keeper.sock', socket.SOCK_SEQPACKET),
      attempt(d + '/control.sock', socket.SOCK_STREAM), attempt(d + '/service-1.sock', socket.SOCK_STREAM),
      os.access(d + '/state.json', os.R_OK), os.access(d, os.R_OK), os.access(d + '/attach', os.R_OK | os.X_OK))
`;
  const { stdout, stderr } = spawnSync(
    'setpriv',
    ['--reuid', '1000', '--regid', '1000', '--clear-groups', '/usr/bin/python3', '-c', tryAll, site.dir.path],
    { encoding: 'utf8', timeout: 10_000 },
  );
  t.is(stdout, '1 PermissionError PermissionError PermissionError False False True\n', stderr);
});

real('the table socket lives and dies with the keeper, and a new keeper has the table', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const a = join(root, 'a');
  await mountReal(site, client, a, 'memory');
  t.is(tableOf(site).lookup(`${a}/x`)?.path, a);
  process.kill((await status(client)).keeper.pid, 'SIGKILL');
  await until('a new keeper hands it out', 8000, () => {
    try {
      return native().mountTableFetch(site.dir.tableSocket)?.lookup(`${a}/x`)?.path === a;
    } catch {
      return false;
    }
  });
  await sh(`umount ${a}`);
  await client.request('mount.gone', { path: a, timeoutMs: 5000 });
  await client.request('stop', { mounts: 'unmount' });
  await until('polyd ended', 5000, () => site.child?.exitCode === 0);
  await until('no socket is left', 5000, () => readdirSync(site.dir.attachDir).length === 0);
});

/** A program that is attached until the test ends, run by `uid` (under `wrapper`), and what it says. */
async function attach(
  t: ExecutionContext,
  site: Site,
  uid: number,
  mount: string,
  ...wrapper: string[]
): Promise<[ChildProcess, string]> {
  const ids = ['--reuid', String(uid), '--regid', String(uid), '--clear-groups'];
  const child = spawn('setpriv', [...ids, ...wrapper, ATTACH_CLIENT, site.dir.attachDir, mount, 'f'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => {
    child.kill('SIGKILL');
  });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
  await until('the client has done its steps', 10_000, () => said.endsWith('\n'));
  return [child, said];
}

real('programs of any user attach, are listed while they are there, and reach no hidden mount', async (t) => {
  const { site, root } = realSite(t);
  chmodSync(root, 0o755);
  const client = await site.start();
  const a = join(root, 'a');
  await mountReal(site, client, a, 'memory');
  await sh(`echo data > ${a}/f`);
  const [first, said] = await attach(t, site, 0, a);
  t.is(said, 'size 5\n');
  const [second, other] = await attach(t, site, 1000, a);
  t.is(other, 'size 5\n');
  const listed = async () => {
    const ended = await run(process.execPath, [poly, 'stat', '--clients', a, '--json'], site.env);
    return JSON.parse(ended.stdout) as StatsResult['services'][number]['clients'];
  };
  const rows = (await listed()).sort((x, y) => x.uid - y.uid);
  t.deepEqual(
    rows.map(({ pid, uid, command, instances, calls, declined }) => [
      pid,
      uid,
      command,
      instances,
      calls,
      declined,
    ]),
    [
      [first.pid, 0, 'attach-client', [1], 1, 0],
      [second.pid, 1000, 'attach-client', [1], 1, 0],
    ],
  );
  first.stdin?.end();
  await until('one is left', 5000, async () => (await listed()).length === 1);
  second.kill('SIGKILL');
  await until('nobody is left', 5000, async () => (await listed()).length === 0);
  // A successor knows the mount by the same numbers.
  process.kill((await status(client)).services[0]?.pid ?? 0, 'SIGKILL');
  await until('a successor runs', 5000, async () => {
    const [service] = (await status(client)).services;
    return service?.state === 'running' && service.restarts === 1;
  });
  t.is((await attach(t, site, 1000, a))[1], 'size 5\n');
  // Whose rights do not follow from the ids stays with FUSE.
  const lesser = ['--inh-caps=-chown', '--bounding-set=-chown'];
  t.is((await attach(t, site, 0, a, 'setpriv', ...lesser))[1], 'attach EPERM\n');
  if (spawnSync('unshare', ['-r', 'true']).status === 0)
    t.is((await attach(t, site, 1000, a, 'unshare', '-r'))[1], 'attach EPERM\n');
  // Mounted over, the path is the kernel's: the table and the proof say so.
  await sh(`mkdir ${a}/t; mount -t tmpfs t ${a}/t`);
  await follows(t, tableOf(site), [`${a}/t`]);
  t.is((await attach(t, site, 1000, `${a}/t`))[1], 'lookup ENOENT\n');
  await sh(`umount ${a}/t; mount -t tmpfs over ${a}`);
  t.is((await attach(t, site, 1000, a))[1], 'prove EXDEV\n');
});

real('nobody is attached: statistics tell of no clients', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  await mountReal(site, client, join(root, 'a'), 'memory');
  const stats: StatsResult = await client.request('stats', {});
  t.deepEqual(stats.services[0]?.clients, []);
});

// --- Following mountinfo ---------------------------------------------------------------------------------------

function tableOf(site: Site): NativeMountTable {
  const table = native().mountTableFetch(site.dir.tableSocket);
  if (table === null) throw new Error('no table');
  return table;
}

function kernelPaths(table: NativeMountTable): string[] {
  return table
    .entries()
    .filter((entry) => entry.kernel)
    .map((entry) => entry.path)
    .sort();
}

/** Waits until the table's kernel entries are those, and no others come. */
async function follows(t: ExecutionContext, table: NativeMountTable, paths: string[]): Promise<void> {
  const wanted = JSON.stringify(paths);
  await until(`kernel entries ${wanted}`, 5000, () => JSON.stringify(kernelPaths(table)) === wanted);
  t.deepEqual(kernelPaths(table), paths);
}

real('mounts of others below ours are in the table while they are there', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const a = join(root, 'a');
  await mountReal(site, client, a, 'memory');
  await sh(`mkdir -p ${a}/d/bind '${a}/sp ace' '${a}/back\\slash' ${a}/own ${root}/elsewhere`);
  const table = tableOf(site);
  const before = table.generation;
  t.deepEqual(kernelPaths(table), []);
  await sh(`mount --bind /usr ${a}/d/bind`);
  await follows(t, table, [`${a}/d/bind`]);
  t.true(table.generation > before);
  t.is(table.lookup(`${a}/d/bind/lib`), null);
  t.is(table.lookup(`${a}/d/other`)?.path, a);
  await sh(`mount -t tmpfs tmpfs '${a}/sp ace'; mount -t tmpfs tmpfs '${a}/back\\slash'`);
  await follows(t, table, [`${a}/back\\slash`, `${a}/d/bind`, `${a}/sp ace`]);
  await sh(`mount --bind ${a}/d ${a}/own; mount -t tmpfs tmpfs ${root}/elsewhere`);
  await follows(t, table, [`${a}/back\\slash`, `${a}/d/bind`, `${a}/own`, `${a}/sp ace`]);
  await sh(`umount ${a}/own ${a}/d/bind '${a}/sp ace' '${a}/back\\slash'`);
  await follows(t, table, []);
  t.is(table.lookup(`${a}/d/bind/lib`)?.path, a);
});

real('a mount elsewhere, a remount and a burst each start a new generation', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const a = join(root, 'a');
  await mountReal(site, client, a, 'memory');
  await sh(`mkdir ${root}/other ${a}/t`);
  const table = tableOf(site);
  const grows = async (what: string, command: string): Promise<void> => {
    const before = table.generation;
    await sh(command);
    await until(what, 5000, () => table.generation > before);
    t.true(table.generation > before, what);
  };
  await grows('a mount elsewhere', `mount -t tmpfs tmpfs ${root}/other`);
  await grows('a remount', `mount -o remount,bind,ro ${root}/other`);
  await grows('an unmount', `umount ${root}/other`);
  await grows(
    'a burst',
    `for i in 1 2 3 4 5 6 7 8 9; do mount -t tmpfs t ${a}/t; umount ${a}/t; done; mount -t tmpfs t ${a}/t`,
  );
  await follows(t, table, [`${a}/t`]);
  await sh(`umount ${a}/t`);
  await follows(t, table, []);
});

real('mounts of ours below ours are ours, before they are committed and after', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const a = join(root, 'a');
  await mountReal(site, client, a, 'memory');
  await sh(`mkdir -p ${a}/in ${a}/t`);
  const table = tableOf(site);
  await mountReal(site, client, `${a}/in`, 'memory');
  t.is(table.lookup(`${a}/in/x`)?.path, `${a}/in`);
  await sh(`mount -t tmpfs t ${a}/t; mkdir ${a}/t/q`);
  await mountReal(site, client, `${a}/t/q`, 'memory');
  await follows(t, table, [`${a}/t`]);
  t.is(table.lookup(`${a}/t/q/x`)?.path, `${a}/t/q`);
  t.is(table.lookup(`${a}/t/x`), null);
  // Something on the very path of ours; when ours is given up below it, it stays and is the kernel's.
  await sh(`mount -t tmpfs over ${a}/in`);
  await client.request('mount.forget', { path: `${a}/in` });
  await follows(t, table, [`${a}/in`, `${a}/t`]);
  await sh(`umount ${a}/in`);
  t.is((await status(client)).table.entries, table.entries().length);
});

real('a polyd that comes back finds what was mounted meanwhile', async (t) => {
  const { site, root } = realSite(t);
  const first = await site.start();
  const a = join(root, 'a');
  await mountReal(site, first, a, 'memory');
  await sh(`mkdir ${a}/t ${a}/u; mount -t tmpfs t ${a}/t`);
  const table = tableOf(site);
  await follows(t, table, [`${a}/t`]);
  await site.end('SIGKILL');
  await sh(`umount ${a}/t; mount -t tmpfs t ${a}/u`);
  const before = table.generation;
  await site.start();
  await follows(t, table, [`${a}/u`]);
  t.true(table.generation > before);
});

real('a path that is no UTF-8 is followed by its bytes', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const a = join(root, 'a');
  await mountReal(site, client, a, 'memory');
  const table = tableOf(site);
  const odd = `$(printf '${a}/\\377')`;
  await sh(`mkdir "${odd}"; mount -t tmpfs t "${odd}"`);
  await until('it is followed', 5000, () => kernelPaths(table).length === 1);
  // JavaScript cannot name it, and nothing that it can name is meant.
  t.is(table.lookup(`${a}/\ufffd/x`)?.path, a);
  await sh(`umount "${odd}"`);
  await follows(t, table, []);
});
