/**
 * What an ordinary user does with polyd, run by privileges.test.ts under another uid:
 *   node user_session.js HOME      (HOME/run, HOME/mnt, HOME/src exist)
 */
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { native } from '../../server/native.ts';
import type { PolydMethods } from '../../server/protocol.ts';
import { connectRpc } from '../../server/rpc.ts';
import { runDir } from '../../server/rundir.ts';
import { until } from './helpers.ts';

const home = process.argv[2] ?? '';
const dir = runDir();
const polyd = spawn(process.execPath, [fileURLToPath(new URL('../../server/polyd.js', import.meta.url))], {
  stdio: 'inherit',
});
const sh = (command: string) => execFileSync('sh', ['-ec', command], { encoding: 'utf8', timeout: 8000 });

async function session(path: string, spec: string): Promise<void> {
  const client = await until('polyd', 8000, () =>
    connectRpc<PolydMethods>(dir.controlSocket).catch(() => undefined),
  );
  const addon = native();
  const prepared = await client.request('mount.prepare', { path, spec, options: {} });
  const fuse = addon.fusermountMount(path, prepared.fusermountOptions);
  const keeper = addon.keeperConnect(dir.keeperSocket);
  keeper.put(prepared.keeperName, [fuse]);
  keeper.close();
  addon.closeFd(fuse);
  const fields = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .find((line) => line.includes(` ${path} `))
    ?.split(' ');
  await client.request('mount.commit', {
    mount: prepared.mount,
    device: fields?.[2] ?? '',
    mountId: Number(fields?.[0]),
  });
  const check = (want: string, got: string) => {
    if (want !== got) throw new Error(`${spec}: ${JSON.stringify(got)} instead of ${JSON.stringify(want)}`);
  };
  check('hi\n', sh(`mkdir ${path}/d; echo hi > ${path}/d/f; cat ${path}/d/f`));
  const [service] = (await client.request('status', {})).services;
  process.kill(service?.pid ?? 0, 'SIGKILL');
  check(
    'hi\n',
    await new Promise((resolve) =>
      setTimeout(() => {
        resolve(sh(`cat ${path}/d/f`));
      }, 800),
    ),
  );
  sh(`fusermount3 -u ${path}`);
  await client.request('mount.gone', { path, timeoutMs: 5000 });
  client.end();
}

try {
  await session(join(home, 'mnt'), 'memory');
  await session(join(home, 'mnt'), `local:${join(home, 'src')}`);
  const client = await connectRpc<PolydMethods>(dir.controlSocket);
  await client.request('stop', { mounts: 'unmount' });
  console.log('all well');
} catch (error) {
  console.error(error, readFileSync(dir.logFile, 'utf8'));
  process.exitCode = 1;
} finally {
  polyd.kill();
}
