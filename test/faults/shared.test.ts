/** Two mounts of one libservice: what a dying service had not told the other mount's kernel yet is made up for. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../server/helpers.ts';
import { mountReal, realSite, sh } from '../server/real.ts';
import { full, real, runningService, servicePid } from './harness.ts';

real('what one mount changed before a kill is what the other one sees after it', async (t) => {
  t.timeout(full ? 300_000 : 60_000);
  const { site, root } = realSite(t, { POLY_RESTART_BURST: '1000' });
  const client = await site.start();
  const [a, b] = [join(root, 'a'), join(root, 'b')];
  // Attributes and pages are kept by the kernel for longer than the test lasts; names are believed for the time one chose.
  const options = { pool: 'p', attr_timeout: '600', entry_timeout: '0.2' };
  await mountReal(site, client, a, 'memory:shared', options);
  await mountReal(site, client, b, 'memory:shared', options);
  await sh(`echo 0 > ${a}/f; mkdir ${a}/d; : > ${a}/d/n0`);
  for (let n = 1; n <= (full ? 60 : 12); n++) {
    t.is(await sh(`cat ${b}/f; ls ${b}/d`), `${String(n - 1)}\nn${String(n - 1)}\n`);
    const pid = await runningService(client);
    // The shell's own kill, right behind the answer to its last change.
    const change = n % 2 ? 'rm d/n*; : > d/n$N; echo $N > f' : 'echo $N > f; rm d/n*; : > d/n$N';
    await sh(`cd ${a}; N=${String(n)}; ${change}; kill -9 ${String(pid)}`);
    await until('a new service', 5000, async () => ![0, pid].includes(await servicePid(client)));
    await sleep(250);
    t.is(await sh(`cat ${b}/f; ls ${b}/d`), `${String(n)}\nn${String(n)}\n`);
  }
});
