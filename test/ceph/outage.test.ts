/** Daemons of the cluster killed and started again under verified I/O: calls wait and finish, and nothing is lost. */
import type { ExecutionContext } from 'ava';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../server/helpers.ts';
import { sh } from '../server/real.ts';
import { assertRight, killed, median, runningService, Workload } from '../faults/harness.ts';
import type { Cluster, Daemon } from './cluster.ts';
import { clusterTests, full, Host } from './harness.ts';

const { test } = clusterTests({ durable: true });

/** How long a restarted daemon may hold up calls beyond the outage itself, on two busy cores. */
const BACK_MS = 15_000;
/**
 * Not `victims`: a client killed while the cluster is away waits for it, and the test means to be told what it lost. Not
 * `tree`: of files with several names that are renamed one may go missing (so with ceph-fuse 16.2.15, without any outage).
 */
const AREAS = 'append,counter,removed';

/** Milliseconds until a new file has been written to the OSD and can be looked up. */
async function answers(path: string): Promise<number> {
  const begin = Date.now();
  await sh(
    `echo x >${path}/probe; sync ${path}/probe; test "$(cat ${path}/probe)" = x; rm ${path}/probe`,
    60_000,
  );
  return Date.now() - begin;
}

async function outages(
  t: ExecutionContext,
  cluster: Cluster,
  daemon: Daemon,
  options: string[],
  rounds: number,
): Promise<void> {
  t.timeout(60_000 + rounds * 40_000);
  const host = await Host.start(t);
  const path = await host.mount(cluster, 'm', { options });
  const workload = new Workload(t, await workplace(path), { seconds: 3600, only: AREAS, plain: true });
  const gaps: number[] = [];
  for (let i = 0; i < rounds && workload.running; i++) {
    await sleep(1500);
    await cluster.kill(daemon);
    await sleep(1000);
    await cluster.start(daemon);
    gaps.push(await answers(path));
    t.true(workload.running);
  }
  await sleep(1000);
  workload.stop();
  await assertRight(t, workload);
  t.log(
    `${daemon}: median ${String(median(gaps))} ms after its start until calls are answered, longest ${String(Math.max(...gaps))} ms`,
  );
  t.true(Math.max(...gaps) < BACK_MS);
  t.is((await host.client.request('status', {})).services[0]?.restarts, 0);
}

async function workplace(path: string): Promise<string> {
  await sh(`rm -rf ${path}/work; mkdir ${path}/work`, 30_000);
  return `${path}/work`;
}

for (const daemon of ['mds', 'osd'] as const) {
  for (const write of ['through', 'back']) {
    test(
      `the ${daemon} killed and started again (write=${write})`,
      (t, cluster) => outages(t, cluster, daemon, [`write=${write}`], full ? 10 : 1),
      full || write === 'through',
    );
  }
}

// --- The service killed ----------------------------------------------------------------------------------------

test('the service killed under verified I/O: the mount goes on, and its session is taken over at once', async (t, cluster) => {
  t.timeout(180_000);
  const host = await Host.start(t, { POLY_RESTART_BURST: '1000' });
  const path = await host.mount(cluster, 'm');
  // Not `removed`: an open file without a name ends with its service.
  const workload = new Workload(t, await workplace(path), { seconds: 3600, only: 'append,counter' });
  const gaps: number[] = [];
  for (let i = 0; i < (full ? 30 : 4) && workload.running; i++) {
    await sleep(800);
    const begin = Date.now();
    killed(await runningService(host.client));
    await answers(path);
    gaps.push(Date.now() - begin);
  }
  workload.stop();
  await assertRight(t, workload);
  t.log(
    `median ${String(median(gaps))} ms until calls are answered, longest ${String(Math.max(...gaps))} ms`,
  );
  t.true(Math.max(...gaps) < 10_000, 'nobody waits for the dead session');
  t.is(await cluster.sessions('t1'), 1);
});

/** Writes, says so, waits for a line, then asks for fsync and for close; prints their errors. */
const WRITER = `
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
os.write(fd, b"x" * 100000)
print("written", flush=True)
sys.stdin.readline()
def attempt(name, call):
    try:
        call()
        print(name, "ok")
    except OSError as error:
        print(name, os.strerror(error.errno))
attempt(*{
    "fsync": ("fsync", lambda: os.fsync(fd)),
    "close": ("close", lambda: os.close(fd)),
}[sys.argv[2]])
`;

async function killedBeforeSync(
  t: ExecutionContext,
  cluster: Cluster,
  write: string,
  call: string,
): Promise<string> {
  const host = await Host.start(t);
  const path = await host.mount(cluster, 'm', { options: [`write=${write}`] });
  const fifo = `${host.root}/go`;
  const file = `${path}/unsynced-${write}-${call}`;
  await sh(`rm -f ${file}; mkfifo ${fifo}; cat >${host.root}/writer.py <<'END'\n${WRITER}\nEND`);
  const done = sh(`python3 ${host.root}/writer.py ${file} ${call} <${fifo} >${host.root}/said`, 60_000);
  const go = sh(
    `exec 3>${fifo}; until grep -q go ${host.root}/go-on 2>/dev/null; do sleep .05; done; echo >&3`,
    60_000,
  );
  await until('it is written', 20_000, () => sh(`grep written ${host.root}/said`).catch(() => ''));
  killed(await runningService(host.client));
  await until('the successor serves', 20_000, () => sh(`ls ${path}`).then(() => true));
  await sh(`echo go >${host.root}/go-on`);
  await Promise.all([done, go]);
  return (await sh(`tail -n 1 ${host.root}/said; stat -c %s ${file}; tr -d x <${file} | wc -c`)).trim();
}

for (const call of ['fsync', 'close']) {
  test(`write=back: what was not synced when the service died is EIO at ${call}`, async (t, cluster) => {
    const [said = ''] = (await killedBeforeSync(t, cluster, 'back', call)).split('\n');
    t.is(said, `${call} Input/output error`);
  });

  test(`write=through: nothing is lost when the service dies, and ${call} says so`, async (t, cluster) => {
    t.is(await killedBeforeSync(t, cluster, 'through', call), `${call} ok\n100000\n0`);
  });
}
