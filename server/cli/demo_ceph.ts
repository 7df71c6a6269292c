/**
 * What `poly demo ceph` does: every step is a command that a user could type, shown with its output. Its state is one
 * directory: the cluster's, two mount points, and a mark that the daemon is the demonstration's.
 */
import { spawn } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { connectIfRunning } from './client.ts';
import { CliError, exitCodes, usage } from './errors.ts';
import { findMount } from './umount_flow.ts';
import { print } from './output.ts';

const CLUSTER_SCRIPT = fileURLToPath(new URL('../../../scripts/ceph-cluster.sh', import.meta.url));
const POLY = fileURLToPath(new URL('../../../server/bin/poly.js', import.meta.url));
const TENANTS = ['t1', 't2'];

/** Not below TMPDIR, so that --stop finds it again; short, for the sockets in it. */
const TOP = `/tmp/poly-demo-${String(process.geteuid?.() ?? 0)}`;
const CLUSTER = `${TOP}/ceph`;
const OUR_DAEMON = `${TOP}/daemon-is-ours`;

export async function startCephDemo(): Promise<void> {
  const absent = await run('bash', [CLUSTER_SCRIPT, 'missing']);
  if (absent.code !== 0)
    throw usage(
      `demo ceph: Debian packages are missing: apt-get install --no-install-recommends ${absent.output}`,
    );
  if (existsSync(TOP)) throw usage(`${TOP}: the demonstration is there already (poly demo ceph --stop)`);
  mkdirSync(TOP, { mode: 0o755 });
  try {
    await bringUp();
    await show();
  } catch (error) {
    await takeAway().catch(() => undefined);
    throw error;
  }
  print(`== it is yours, until \`poly demo ceph --stop\`
   ${TENANTS.map((tenant) => `${TOP}/${tenant}`).join(' and ')} are mounted: use them from any program.
   See also: poly ls; poly status; poly stat ${TOP}/t1`);
}

export async function stopCephDemo(): Promise<void> {
  if (!existsSync(TOP)) {
    print('not running');
    return;
  }
  // Anybody may make directories in /tmp.
  const { uid } = lstatSync(TOP);
  if (uid !== process.geteuid?.()) throw usage(`${TOP}: belongs to another user`);
  await takeAway();
  print('stopped');
}

// --- Steps -----------------------------------------------------------------------------------------------------

async function bringUp(): Promise<void> {
  const polyd = await connectIfRunning();
  if (polyd) polyd.end();
  else writeFileSync(OUR_DAEMON, '');
  print('== a cluster: monitor, OSD and MDS');
  const begin = Date.now();
  await must('bash', [CLUSTER_SCRIPT, 'up', CLUSTER]);
  print(`   up after ${((Date.now() - begin) / 1000).toFixed(1)} s, all of it in ${CLUSTER}`);
  print('== two tenants: a key, a directory and a service each');
  for (const tenant of TENANTS) {
    mkdirSync(`${TOP}/${tenant}`);
    await poly([
      'mount',
      `ceph:/${tenant}`,
      `${TOP}/${tenant}`,
      '-o',
      `user=${tenant},conf=${CLUSTER}/ceph.conf`,
    ]);
  }
}

async function show(): Promise<void> {
  print('== files, through the kernel and by the fast path');
  await shell(`echo 'written through FUSE' >${TOP}/t1/greeting`);
  await poly(['run', 'cat', `${TOP}/t1/greeting`]);
  await shell(
    `mkdir ${TOP}/t1/sources && cp -r ${fileURLToPath(new URL('../../../server', import.meta.url))} ${TOP}/t1/sources`,
  );
  await poly(['run', 'du', '-s', '--apparent-size', `${TOP}/t1/sources`]);
  await shell(`ls -A ${TOP}/t2 | wc -l   # what t1 has, t2 has not`);
  print('== and with the key of t1, the directory of t2');
  const denied = `${TOP}/denied`;
  mkdirSync(denied);
  const options = ['-o', `user=t1,conf=${CLUSTER}/ceph.conf`];
  const { code, output } = await command(
    process.execPath,
    [POLY, 'mount', 'ceph:/t2', denied, ...options],
    'poly mount ceph:/t2 …',
  );
  rmdirSync(denied);
  if (code === 0) throw new CliError(exitCodes.bug, `demo ceph: t1 reached the directory of t2: ${output}`);
}

/** Whatever has come up of it. */
async function takeAway(): Promise<void> {
  for (const tenant of TENANTS) {
    if (findMount(`${TOP}/${tenant}`)) await must(process.execPath, [POLY, 'umount', `${TOP}/${tenant}`]);
  }
  if (existsSync(OUR_DAEMON)) await must(process.execPath, [POLY, 'stop']);
  await must('bash', [CLUSTER_SCRIPT, 'down', CLUSTER]);
  rmSync(OUR_DAEMON, { force: true });
  for (const name of [...TENANTS, 'denied']) if (existsSync(`${TOP}/${name}`)) rmdirSync(`${TOP}/${name}`);
  rmdirSync(TOP);
}

// --- Commands --------------------------------------------------------------------------------------------------

interface Ended {
  code: number;
  output: string;
}

function run(program: string, args: string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    child.once('error', reject);
    child.once('close', (code) => {
      resolve({ code: code ?? 1, output: output.trim() });
    });
  });
}

async function must(program: string, args: string[]): Promise<Ended> {
  const ended = await run(program, args);
  if (ended.code !== 0) throw new CliError(exitCodes.system, `demo ceph: ${ended.output}`);
  return ended;
}

/** Shows the command as typed, and what it says. */
async function command(program: string, args: string[], typed: string): Promise<Ended> {
  print(`   $ ${typed}`);
  const ended = await run(program, args);
  if (ended.output !== '') print(ended.output.replace(/^/gm, '   '));
  return ended;
}

async function shown(program: string, args: string[], typed: string): Promise<void> {
  const { code } = await command(program, args, typed);
  if (code !== 0) throw new CliError(exitCodes.system, `demo ceph: ${typed}: status ${String(code)}`);
}

function poly(args: string[]): Promise<void> {
  return shown(process.execPath, [POLY, ...args], ['poly', ...args].join(' '));
}

function shell(script: string): Promise<void> {
  return shown('sh', ['-c', script], script);
}
