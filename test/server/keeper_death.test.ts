/** The keeper dies: services hand what they hold to another one, and recovery goes on. */
import test, { type ExecutionContext } from 'ava';
import { join } from 'node:path';
import { isRunning, status, temporary, until, type Client, type Site } from './helpers.ts';
import { missing, mountReal, realSite, sh } from './real.ts';

const reason = missing();
const real = (title: string, body: (t: ExecutionContext) => Promise<void>): void => {
  if (reason === undefined) test.serial(title, body);
  else test.serial.skip(`${title} (${reason})`, body);
};

async function killKeeper(client: Client): Promise<number> {
  const { pid } = (await status(client)).keeper;
  process.kill(pid, 'SIGKILL');
  return pid;
}

/** Waits until another keeper has of every service what it needs. */
async function restocked(site: Site, client: Client, services: number): Promise<void> {
  await until('another keeper has all', 10_000, async () => {
    const { keeper } = await status(client);
    const told = site.log().match(/the keeper has what the service needs/g) ?? [];
    return keeper.pid !== 0 && told.length >= services;
  });
}

async function killServices(client: Client): Promise<void> {
  const { services } = await status(client);
  for (const { pid } of services) process.kill(pid, 'SIGKILL');
  await until('successors run', 10_000, async () =>
    (await status(client)).services.every(({ state, restarts }) => state === 'running' && restarts > 0),
  );
}

interface Work {
  memory: string;
  local: string;
  /** What the program that has files open says in the end. */
  ended: Promise<string>;
}

/**
 * A memory and a local mount, and a program that has in both a file open, one that it has removed, and a current directory
 * that is removed. It goes on when `go` is there: two more lines, then it shows all.
 */
async function workingSite(t: ExecutionContext, client: Client, site: Site, root: string): Promise<Work> {
  const [memory, local] = [join(root, 'm'), join(root, 'l')];
  await mountReal(site, client, memory, 'memory');
  await mountReal(site, client, local, `local:${temporary(t, 'poly-src-')}`);
  await sh(`echo kept > ${memory}/f; echo kept > ${local}/f; mkdir ${memory}/d`);
  const script = `cd ${memory}/d; rmdir ${memory}/d
    exec 3>>${memory}/open 4<>${memory}/gone 5>>${local}/open 6<>${local}/gone
    for f in 3 4 5 6; do echo first >&$f; done
    rm ${memory}/gone ${local}/gone; touch ${root}/ready
    until [ -e ${root}/go ]; do sleep 0.05; done
    for f in 3 4 5 6; do echo second >&$f; done
    cat ${memory}/open /proc/self/fd/4 ${local}/open /proc/self/fd/6 | sort | uniq -c`;
  const ended = sh(script, 60_000);
  ended.catch(() => undefined); // Told where it is awaited.
  await until('the program works', 10_000, () => sh(`[ ! -e ${root}/ready ] || echo yes`));
  return { memory, local, ended };
}

async function assertWorks(t: ExecutionContext, root: string, { memory, local, ended }: Work): Promise<void> {
  await sh(`touch ${root}/go`);
  t.is((await ended).replace(/\s+/g, ' ').trim(), '4 first 4 second');
  t.is(await sh(`cat ${memory}/f ${local}/f; ls ${memory} ${local} | wc -l`), 'kept\nkept\n7\n');
}

real('a killed keeper is replaced, told, and services that die then are recovered as before', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const work = await workingSite(t, client, site, root);
  const { fds, names } = (await status(client)).keeper;
  const old = await killKeeper(client);
  await restocked(site, client, 2);
  const { keeper } = await status(client);
  t.not(keeper.pid, old);
  t.deepEqual([keeper.fds, keeper.names, keeper.restarts], [fds, names, 1]);
  t.regex(site.log(), /the keeper is dead/);
  await killServices(client);
  await assertWorks(t, root, work);
});

real('a keeper that dies while there is no polyd is replaced by the next polyd', async (t) => {
  const { site, root } = realSite(t);
  const first = await site.start();
  const work = await workingSite(t, first, site, root);
  const old = await killKeeper(first);
  await site.end('SIGKILL');
  t.false(isRunning(old));
  // Without a keeper files can be removed while they are open, too.
  const later = sh(
    `exec 3<>${work.memory}/later; echo later >&3; rm ${work.memory}/later
     until [ -e ${root}/go ]; do sleep 0.05; done; cat /proc/self/fd/3`,
    60_000,
  );
  later.catch(() => undefined); // Told where it is awaited.
  await until('removed', 5000, () => sh(`[ -e ${work.memory}/later ] || echo yes`));
  const second = await site.start(20_000);
  await restocked(site, second, 2);
  await killServices(second);
  await assertWorks(t, root, work);
  t.is(await later, 'later\n');
});

real('keeper and service killed together: the mount is lost and told, others are not', async (t) => {
  const { site, root } = realSite(t);
  const client = await site.start();
  const [lost, other] = [join(root, 'a'), join(root, 'b')];
  const { service } = await mountReal(site, client, lost, 'memory');
  await mountReal(site, client, other, 'memory');
  await sh(`echo x > ${other}/f`);
  const { services } = await status(client);
  process.kill(services.find(({ id }) => id === service)?.pid ?? 0, 'SIGKILL');
  await killKeeper(client);
  await until(
    'failed',
    10_000,
    async () => (await client.request('mount.find', { path: lost }))?.state === 'failed',
  );
  t.is(await sh(`echo y >> ${other}/f; cat ${other}/f`), 'x\ny\n');
  // Another mount gets the ids of the lost one, mostly.
  await sh(`mkdir ${root}/c && umount -l ${lost} && mount -t tmpfs none ${root}/c`);
  await until('forgotten', 5000, async () => (await client.request('mount.find', { path: lost })) === null);
  await mountReal(site, client, lost, 'memory');
  t.is(await sh(`echo z > ${lost}/f; cat ${lost}/f`), 'z\n');
});
