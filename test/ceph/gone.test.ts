/** A daemon of the cluster gone for good: said by `poly status`, survived by everybody else, ended by release, time-out or stop. */
import type { ExecutionContext } from 'ava';
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { isRunning, until } from '../server/helpers.ts';
import { sh } from '../server/real.ts';
import type { Daemon } from './cluster.ts';
import { clusterTests, Host } from './harness.ts';

const { test } = clusterTests({ durable: true, tenants: ['t1', 't2', 't3', 't4'] });

/** Writes a new file and syncs it, then looks up a name: asks both daemons. */
const ASKING = 'echo x >"$0/asked" && sync "$0/asked" && ls "$0/absent"';

/** Asks the cluster in a process of its own; resolves with what it said on stderr. */
function ask(t: ExecutionContext, path: string): { said: Promise<string>; running: () => boolean } {
  const child = spawn('sh', ['-c', ASKING, path], { stdio: ['ignore', 'ignore', 'pipe'] });
  t.teardown(() => child.kill('SIGKILL'));
  let text = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  const said = new Promise<string>((resolve) => {
    child.once('close', () => {
      resolve(text);
    });
  });
  return { said, running: () => child.exitCode === null && child.signalCode === null };
}

async function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  const late = sleep(ms, undefined, { ref: false }).then(() => {
    throw new Error(`not within ${String(ms)} ms: ${what}`);
  });
  return Promise.race([work, late]);
}

for (const daemon of ['osd', 'mds'] as const satisfies Daemon[]) {
  test(`the ${daemon} gone: status says so, others go on, release and op_timeout= free calls, stop works`, async (t, cluster) => {
    t.timeout(180_000);
    t.teardown(() => cluster.start(daemon));
    const host = await Host.start(t);
    // A client that is stopped while the cluster is away cannot say so: its tenant's next one would wait for a minute.
    const [one, two] = daemon === 'osd' ? ['t1', 't2'] : ['t3', 't4'];
    const waits = await host.mount(cluster, 'waits', { user: one });
    const limited = await host.mount(cluster, 'limited', { user: two, options: ['op_timeout=3'] });
    const other = host.directory('other');
    await host.must('mount', 'memory', other);
    await sh(`ls ${waits} ${limited}`);
    await cluster.kill(daemon);

    const [waiting, bounded] = [ask(t, waits), ask(t, limited)];
    t.regex(await within(20_000, 'op_timeout=3', bounded.said), /Input\/output error|Connection timed out/);
    t.true(waiting.running());
    await within(5000, 'df of another tenant', sh(`df ${other}; echo x >${other}/f; cat ${other}/f`, 5000));
    await until('poly status says that the cluster does not answer', 30_000, async () =>
      (await host.must('status')).includes(waits),
    );
    t.log((await host.must('status')).split('\n').filter((line) => line.startsWith('backend')));

    t.log((await host.must('release', waits)).trim());
    t.regex(await within(10_000, 'release', waiting.said), /Input\/output error/);

    const stuck = ask(t, waits);
    const { services } = await host.client.request('status', {});
    const begin = Date.now();
    const stopped = await host.poly('stop', '--lazy');
    t.is(stopped.code, 0, stopped.stderr);
    t.log(`stopped after ${String(Date.now() - begin)} ms`);
    await until('the services have ended', 20_000, () => services.every(({ pid }) => !isRunning(pid)));
    await within(10_000, 'nobody waits any more', stuck.said);
  });
}
