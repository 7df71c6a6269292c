/** Two hosts on one Ceph directory: daemons of their own, so that nothing but the cluster tells one of the other's changes. */
import type { ExecutionContext } from 'ava';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Ended, run } from '../server/cli_harness.ts';
import { until } from '../server/helpers.ts';
import { sh } from '../server/real.ts';
import { assertRight, Workload } from '../faults/harness.ts';
import type { Cluster } from './cluster.ts';
import { clusterTests, full, Host } from './harness.ts';

const { test } = clusterTests();

/**
 * Writes through one path and reads through the other, in turn; how often that was right. With ARGV[3], the reader asks
 * for the size first: that tells a kernel that holds the page of a change (ceph-fuse is not right even so).
 */
const TURNS = `
import os, sys, time
one, other = os.open(sys.argv[1], os.O_WRONLY), os.open(sys.argv[2], os.O_RDONLY)
right = 0
for i in range(20):
    word = os.urandom(6)
    os.pwrite(one, word, 6 * i)
    if sys.argv[3] != "0":
        os.fstat(other)
        time.sleep(float(sys.argv[3]))
    right += os.pread(other, 6, 6 * i) == word
print(right, "of 20")
`;

interface Hosts {
  second: Host;
  /** The same directory, mounted by one host and by the other. */
  a: string;
  b: string;
}

async function twoHosts(t: ExecutionContext, cluster: Cluster, options: string[] = []): Promise<Hosts> {
  const [first, second] = await Promise.all([Host.start(t), Host.start(t)]);
  const a = await first.mount(cluster, 'a', { options });
  const b = await second.mount(cluster, 'b', { options });
  await sh(`rm -rf ${a}/*`);
  return { second, a, b };
}

for (const write of ['through', 'back']) {
  const options = [`write=${write}`];

  test(`what one host has closed, the other reads: data, size, times, mode (write=${write})`, async (t, cluster) => {
    const { a, b } = await twoHosts(t, cluster, options);
    for (let i = 0; i < 20; i++) {
      const [from, to] = i % 2 === 0 ? [a, b] : [b, a];
      await sh(`seq ${String(i * 100)} ${String(i * 100 + i * 50)} >${from}/f`);
      t.is(await sh(`cat ${to}/f`), await sh(`seq ${String(i * 100)} ${String(i * 100 + i * 50)}`));
      await sh(`chmod ${i % 3 === 0 ? '640' : '604'} ${to}/f; echo more >>${to}/f`);
      t.is(await sh(`stat -c '%s %a %Y' ${from}/f`), await sh(`stat -c '%s %a %Y' ${to}/f`));
    }
  });

  test(`what one host writes into an open file, the other reads (write=${write})`, async (t, cluster) => {
    const { second, a, b } = await twoHosts(t, cluster, options);
    await sh(`truncate -s 64k ${a}/f`);
    const script = `${second.root}/turns.py`;
    writeFileSync(script, TURNS);
    const slow = await run('python3', [script, `${a}/f`, `${b}/f`, '0.02']);
    t.is(slow.stdout, '20 of 20\n', slow.stderr);
    // The fast path caches nothing on the way: the reader's client answers.
    const fast = await second.poly('run', '--', 'python3', script, `${a}/f`, `${b}/f`, '0');
    t.is(fast.stdout, '20 of 20\n', fast.stderr);
  });
}

test('names made, moved and removed on one host are so on the other, at once', async (t, cluster) => {
  const { a, b } = await twoHosts(t, cluster);
  for (let i = 0; i < 10; i++) {
    const [from, to] = i % 2 === 0 ? [a, b] : [b, a];
    t.is(await sh(`ls ${to}; test ! -e ${to}/new`), '', 'the other knows that there is none');
    await sh(`mkdir ${from}/new; touch ${from}/new/file`);
    t.is(await sh(`ls ${to}/new`), 'file\n');
    await sh(`mv ${to}/new/file ${to}/moved; rmdir ${to}/new`);
    t.is(await sh(`ls ${from}`), 'moved\n');
    await sh(`ln ${from}/moved ${from}/linked; ln -s moved ${from}/symbolic`);
    t.is(await sh(`stat -c %h ${to}/moved; readlink ${to}/symbolic`), '2\nmoved\n');
    await sh(`rm ${to}/moved ${to}/linked ${to}/symbolic`);
    t.is(await sh(`ls ${from}`), '');
  }
});

/** Python's fcntl, as flock(1) takes flock(2)'s locks. Holds a lock until its standard input ends. */
const HOLD = `
import fcntl, sys
file = open(sys.argv[1], "r+")
getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
`;

const APPEND = `
import fcntl, os, sys
for i in range(1, 201):
    with open(sys.argv[1], "a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        print(f"{sys.argv[2]} {i:05} 0123456789abcdef", file=file, flush=True)
`;

for (const kind of ['lockf']) {
  test(`a lock on one host keeps the other out until it goes (${kind})`, async (t, cluster) => {
    const { a, b } = await twoHosts(t, cluster);
    await sh(`echo x >${a}/f`);
    const holder = spawn('python3', ['-c', HOLD, `${a}/f`, kind], { stdio: ['pipe', 'pipe', 'inherit'] });
    t.teardown(() => holder.kill('SIGKILL'));
    let said = '';
    holder.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
    await until('the lock is held', 10_000, () => said === 'held\n');
    const attempt = `
import fcntl, sys
try:
    fcntl.${kind}(open(sys.argv[1], "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError as error:
    sys.exit(error.strerror)
`;
    const refused = await run('python3', ['-c', attempt, `${b}/f`]);
    t.is(refused.stderr, 'Resource temporarily unavailable\n');
    const waiter = run('python3', ['-c', HOLD, `${b}/f`, kind]);
    await sleep(500);
    const released = Date.now();
    holder.kill('SIGKILL');
    t.is((await waiter).stdout, 'held\n');
    t.log(`granted ${String(Date.now() - released)} ms after the holder was killed`);
    t.true(Date.now() - released < 10_000);
  });
}

// Without a lock they overwrite each other's: a client asks for the size, and then writes (Client::_write); so with ceph-fuse.
test('two hosts append to one file under a lock, and no record is lost or torn', async (t, cluster) => {
  const { a, b } = await twoHosts(t, cluster);
  const append = (path: string, name: string): Promise<Ended> =>
    run('python3', ['-c', APPEND, `${path}/log`, name], {}, { timeoutMs: 60_000 });
  await Promise.all([append(a, 'a'), append(b, 'b')]);
  const lines = (await sh(`cat ${a}/log`)).trimEnd().split('\n');
  t.is(lines.length, 400);
  for (const name of ['a', 'b']) {
    const numbers = lines
      .filter((line) => line.startsWith(`${name} `))
      .map((line) => Number(line.slice(2, 7)));
    t.deepEqual(
      numbers,
      Array.from({ length: 200 }, (_, i) => i + 1),
    );
  }
  t.is(await sh(`cmp ${a}/log ${b}/log`), '');
});

test(
  'verified I/O by one host in a directory that the other lists and reads',
  async (t, cluster) => {
    const { a, b } = await twoHosts(t, cluster);
    t.timeout(90_000);
    const workload = new Workload(t, a, { seconds: 20, only: 'tree,append,removed,readdir', plain: true });
    while (workload.running) {
      await run('find', [b, '-type', 'f', '-exec', 'cat', '{}', '+'], {}, { timeoutMs: 60_000 });
      await sleep(200);
    }
    await assertRight(t, workload);
  },
  full,
);
