/** Real mounts under polyd: what they serve, and what survives whose death. */
import test, { type ExecutionContext } from 'ava';
import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isRunning, status, temporary, until, type Client } from './helpers.ts';
import { abortConnection, missing, mountLines, mountReal, realSite, sh } from './real.ts';

const reason = missing();
const real = (title: string, body: (t: ExecutionContext) => Promise<void>): void => {
  if (reason === undefined) test.serial(title, body);
  else test.serial.skip(`${title} (${reason})`, body);
};

async function servicePid(client: Client, id: number): Promise<number> {
  return (await status(client)).services.find((service) => service.id === id)?.pid ?? 0;
}

async function recovered(client: Client, restarts: number): Promise<void> {
  await until('recovered', 5000, async () => {
    const { services } = await status(client);
    return services.every((service) => service.state === 'running' && service.restarts >= restarts);
  });
}

real('memory and local mounts hold files', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const source = temporary(t, 'poly-src-');
  writeFileSync(join(source, 'there'), 'from below');
  const m = join(root, 'm');
  const l = join(root, 'l');
  await mountReal(site, client, m, 'memory', { size: '16m' });
  await mountReal(site, client, l, `local:${source}`);
  t.is(await sh(`echo hi > ${m}/f; mkdir ${m}/d; mv ${m}/f ${m}/d/g; cat ${m}/d/g`), 'hi\n');
  t.is(await sh(`cat ${l}/there; echo x > ${l}/new; cat ${source}/new`), 'from belowx\n');
  t.is(mountLines().filter((line) => line.path.startsWith(root) && line.type === 'fuse.poly').length, 2);
  const list = await client.request('mount.list', {});
  t.deepEqual(
    list.map((info) => info.device),
    [m, l].map((path) => mountLines().find((line) => line.path === path)?.device),
  );
});

real('shared mounts show one tree, a new service another', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const outer = join(root, 'a');
  await mountReal(site, client, outer, 'memory:x');
  await sh(`mkdir ${outer}/in ${outer}/own; echo 1 > ${outer}/f`);
  t.is((await mountReal(site, client, `${outer}/in`, 'memory:x', { share: true })).outcome, 'shared');
  t.is((await mountReal(site, client, `${outer}/own`, 'memory:x')).outcome, 'new-service');
  t.is(await sh(`cat ${outer}/in/f; ls ${outer}/own`), '1\n');
  await sh(`echo 2 > ${outer}/in/g`);
  t.is(await sh(`cat ${outer}/g`), '2\n');
  t.is((await mountReal(site, client, outer, 'memory:x')).outcome, 'full-match');
});

real('a directory may be mounted over itself or over its parent, and that survives a death', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  await sh(`mkdir -p ${root}/self ${root}/above/src; echo 1 > ${root}/self/f; echo 2 > ${root}/above/src/f`);
  const { service } = await mountReal(site, client, join(root, 'self'), `local:${root}/self`);
  await mountReal(site, client, join(root, 'above'), `local:${root}/above/src`);
  t.is(await sh(`cat ${root}/self/f ${root}/above/f`), '1\n2\n');
  process.kill(await servicePid(client, service), 'SIGKILL');
  t.is(await sh(`cat ${root}/self/f`, 5000), '1\n');
  await recovered(client, 0);
  await t.throwsAsync(mountReal(site, client, join(root, 'x'), `local:${root}/nosuch`), {
    message: new RegExp(`^local:${root}/nosuch: .*No such file`),
  });
});

real('read-only mounts and remount', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const path = join(root, 'm');
  await mountReal(site, client, path, 'memory', { ro: true });
  await t.throwsAsync(sh(`touch ${path}/f`), { message: /Read-only/ });
  await client.request('mount.remount', { path, options: { rw: true } });
  await sh(`mount -o remount,rw -i ${path}`).catch(() => undefined);
});

real('umount(8) is noticed: the mount goes, and with the last one the service', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const a = await mountReal(site, client, join(root, 'a'), 'memory', { pool: 'p' });
  await mountReal(site, client, join(root, 'b'), 'memory', { pool: 'p' });
  const pid = await servicePid(client, a.service);
  await sh(`umount ${root}/a`);
  await client.request('mount.gone', { path: join(root, 'a'), timeoutMs: 5000 });
  t.true(isRunning(pid));
  t.is(await sh(`echo x > ${root}/b/f; cat ${root}/b/f`), 'x\n');
  await sh(`umount ${root}/b`);
  await client.request('mount.gone', { path: join(root, 'b'), timeoutMs: 5000 });
  await until('service ended', 5000, () => !isRunning(pid));
  await until('all fds dropped', 5000, async () => (await status(client)).keeper.names === 1);
});

real('an aborted connection is dropped or failed, and can be mounted again', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const path = join(root, 'a');
  await mountReal(site, client, path, 'memory');
  abortConnection(mountLines().find((line) => line.path === path)?.device ?? '');
  await until(
    'noticed',
    5000,
    async () => (await client.request('mount.find', { path }))?.state !== 'mounted',
  );
  await sh(`umount -l ${path}`);
  await client.request('mount.gone', { path, timeoutMs: 5000 });
  t.is((await mountReal(site, client, path, 'memory')).outcome, 'new-service');
  t.is(await sh(`echo x > ${path}/f; cat ${path}/f`), 'x\n');
});

for (const type of ['memory', 'local']) {
  real(`${type}: a killed service is replaced within a second, files and open files included`, async (t) => {
    const { site, root } = realSite(t);
    const client = await site.start();
    const path = join(root, 'a');
    const spec = type === 'memory' ? 'memory' : `local:${temporary(t, 'poly-src-')}`;
    const { service } = await mountReal(site, client, path, spec);
    await sh(`echo kept > ${path}/f; mkdir ${path}/d`);
    // Holds one open file and one that is open but unlinked, and appends to both every 10 ms.
    const script = `exec 3>>${path}/open 4<>${path}/gone; rm ${path}/gone; i=0
      while [ $i -lt 100 ]; do i=$((i+1)); echo $i >&3; echo $i >&4; sleep 0.01; done
      cat /proc/self/fd/4 | wc -l; wc -l < ${path}/open`;
    const writer = sh(script, 20_000);
    // Its failure is told where it is awaited.
    writer.catch(() => undefined);
    const times: number[] = [];
    for (let kill = 1; kill <= 3; kill++) {
      const pid = await servicePid(client, service);
      const start = Date.now();
      process.kill(pid, 'SIGKILL');
      t.is(await sh(`cat ${path}/f`, 5000), 'kept\n');
      times.push(Date.now() - start);
      await recovered(client, kill);
      t.not(await servicePid(client, service), pid);
    }
    t.log(`answered after ${times.join(', ')} ms`);
    // The best of three: the machine may be busy with other things.
    t.true(Math.min(...times) < 1000);
    t.is((await writer).replace(/\s+/g, ' '), '100 100 ');
    t.is((await sh(`cat ${path}/f; ls ${path}`)).replace(/\s+/g, ' '), 'kept d f open ');
  });
}

real('polyd killed and started again adopts all: programs notice nothing', async (t) => {
  const { site, root } = realSite(t);
  const first = await site.start();
  await mountReal(site, first, join(root, 'a'), 'memory');
  await mountReal(site, first, join(root, 'b'), `local:${temporary(t, 'poly-src-')}`);
  const before = await status(first);
  await sh(`echo 1 > ${root}/a/f`);
  await site.end('SIGKILL');
  t.is(await sh(`cat ${root}/a/f; echo 2 > ${root}/b/g; cat ${root}/b/g`), '1\n2\n');
  const second = await site.start();
  const after = await status(second);
  t.deepEqual(
    after.services.map((service) => [service.id, service.pid, service.restarts]),
    before.services.map((service) => [service.id, service.pid, 0]),
  );
  t.is(after.keeper.pid, before.keeper.pid);
  t.is(after.table.entries, 2);
  process.kill(after.services[0]?.pid ?? 0, 'SIGKILL');
  t.is(await sh(`cat ${root}/a/f`, 5000), '1\n');
  await sh(`umount ${root}/b`);
  await second.request('mount.gone', { path: join(root, 'b'), timeoutMs: 5000 });
});

real('polyd and services killed together are recovered by the next polyd', async (t) => {
  const { site, root } = realSite(t);
  const first = await site.start();
  await mountReal(site, first, join(root, 'a'), 'memory');
  await mountReal(site, first, join(root, 'b'), `local:${temporary(t, 'poly-src-')}`);
  await sh(`echo 1 > ${root}/a/f; echo 2 > ${root}/b/g`);
  const before = await status(first);
  for (const pid of [before.pid, ...before.services.map((service) => service.pid)])
    process.kill(pid, 'SIGKILL');
  await site.end('SIGKILL');
  const waiting = sh(`cat ${root}/a/f ${root}/b/g; echo 3 > ${root}/a/h; cat ${root}/a/h`, 15_000);
  const second = await site.start();
  t.is(await waiting, '1\n2\n3\n');
  await recovered(second, 1);
  t.deepEqual(
    (await second.request('mount.list', {})).map((info) => info.state),
    ['mounted', 'mounted'],
  );
});

real('a mount that was unmounted while all were dead is forgotten', async (t) => {
  const { site, root } = realSite(t);
  const first = await site.start();
  await mountReal(site, first, join(root, 'a'), 'memory');
  const before = await status(first);
  for (const pid of [before.pid, ...before.services.map((service) => service.pid)])
    process.kill(pid, 'SIGKILL');
  await site.end('SIGKILL');
  await sh(`umount -l ${root}/a`);
  const second = await site.start();
  await until('forgotten', 5000, async () => (await status(second)).services.length === 0);
  t.deepEqual(await second.request('mount.list', {}), []);
  t.is((await status(second)).keeper.names, 1);
});

real('a lost state file is rebuilt from the services and the mount table', async (t) => {
  const { site, root } = realSite(t);
  const first = await site.start();
  const source = temporary(t, 'poly-src-');
  await mountReal(site, first, join(root, 'a'), 'memory');
  await mountReal(site, first, join(root, 'b'), `local:${source}`, { ro: true });
  await sh(`echo 1 > ${root}/a/f`);
  const before = await status(first);
  await site.end('SIGTERM');
  writeFileSync(site.dir.stateFile, '{"version":1,');
  const second = await site.start();
  const list = await second.request('mount.list', {});
  t.deepEqual(list.map((info) => [info.path, info.spec, info.readOnly]).sort(), [
    [join(root, 'a'), 'memory', false],
    [join(root, 'b'), `local:${source}`, true],
  ]);
  t.deepEqual(
    (await status(second)).services.map((s) => s.pid).sort(),
    before.services.map((s) => s.pid).sort(),
  );
  process.kill(
    await servicePid(second, list.find((info) => info.path.endsWith('a'))?.service ?? 0),
    'SIGKILL',
  );
  t.is(await sh(`cat ${root}/a/f`, 5000), '1\n');
});

real('a service that hangs when polyd comes back is replaced', async (t) => {
  const { site, root } = realSite(t);
  const first = await site.start();
  const { service } = await mountReal(site, first, join(root, 'a'), 'memory');
  await sh(`echo 1 > ${root}/a/f`);
  const pid = await servicePid(first, service);
  await site.end('SIGKILL');
  process.kill(pid, 'SIGSTOP');
  const second = await site.start(15_000);
  t.is(await sh(`cat ${root}/a/f`, 5000), '1\n');
  t.false(isRunning(pid));
  t.is((await status(second)).services[0]?.restarts, 1);
});

real('another uid is refused', async (t) => {
  const { site } = realSite(t);
  const client = await site.start();
  chmodSync(site.dir.path, 0o755);
  chmodSync(site.dir.controlSocket, 0o777);
  // What the daemon says at once is read before anything is written: a write that fails would lose it.
  const script = `const s=require('net').connect(process.argv[1]);s.on('error',()=>{});s.on('data',d=>process.stdout.write(d));setTimeout(()=>s.write('{"jsonrpc":"2.0","id":1,"method":"status","params":{}}\\n'),300)`;
  const run = (...as: string[]) =>
    new Promise<string>((resolve) => {
      const child = spawn('timeout', [
        '5',
        'setpriv',
        ...as,
        process.execPath,
        '-e',
        script,
        site.dir.controlSocket,
      ]);
      let text = '';
      child.stdout.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        if (text.includes('\n')) child.kill();
      });
      child.on('close', () => {
        resolve(text);
      });
    });
  t.regex(await run('--reuid', '1000', '--regid', '1000', '--clear-groups'), /EPERM/);
  t.regex(await run('--reset-env'), /"runDir"/);
  t.is((await status(client)).pid, site.child?.pid ?? 0);
});

real('200 mounts in one service need no more threads than one', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  await mountReal(site, client, join(root, 'm0'), 'memory', { pool: 'p' });
  await sh(`touch ${root}/m0/f`);
  const one = (await status(client)).services[0]?.threads ?? 0;
  for (let i = 1; i < 200; i++)
    await mountReal(site, client, join(root, `m${String(i)}`), 'memory', { pool: 'p' });
  await sh(`for i in $(seq 0 199); do echo $i > ${root}/m$i/f; done; cat ${root}/m*/f | wc -l`);
  const [service] = (await status(client)).services;
  t.is(service?.mounts, 200);
  t.true((service?.threads ?? 999) <= one + 4, `${String(one)} then ${String(service?.threads)}`);
  t.log(`rss ${String((service?.rss ?? 0) >> 20)} MiB, threads ${String(service?.threads)}`);
  const start = Date.now();
  process.kill(service?.pid ?? 0, 'SIGKILL');
  await sh(`cat ${root}/m*/f | wc -l`, 20_000);
  t.log(`recovered 200 mounts in ${String(Date.now() - start)} ms`);
  mkdirSync(join(root, 'done'));
});
