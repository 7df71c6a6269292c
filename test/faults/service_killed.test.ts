/**
 * A killed service does not kill the mount: programs that check every answer go on, whatever is killed under them, and never
 * see an error or a wrong byte.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import type { MountOptions } from '../../server/protocol.ts';
import { temporary } from '../server/helpers.ts';
import { mountReal, realSite, sh } from '../server/real.ts';
import {
  assertRight,
  full,
  kill,
  median,
  Probe,
  randomBetween,
  real,
  Workload,
  type Victims,
} from './harness.ts';

interface Storm {
  spec: 'memory' | 'local';
  options?: MountOptions;
  kills: number;
  /** Who is killed at kill number n. */
  victims?: (n: number) => Victims;
  /** Milliseconds between kills. */
  pause?: [number, number];
  /** Work in a host mount below the source, where files have no handles for us and are found again by their names. */
  byNames?: boolean;
}

async function hostMount(t: ExecutionContext, path: string): Promise<void> {
  mkdirSync(path);
  await sh(`mount -t tmpfs poly-fault ${path}`);
  t.teardown(() => sh(`umount -l ${path}`).catch(() => undefined));
}

async function storm(t: ExecutionContext, storm: Storm): Promise<void> {
  const { spec, options = {}, kills, victims = () => ({ service: true }), pause = [50, 400] } = storm;
  t.timeout(kills * 5000 + 120_000);
  const { site, root } = realSite(t, { POLY_RESTART_BURST: '1000' });
  let client = await site.start();
  const path = join(root, 'm');
  mkdirSync(path);
  const source = temporary(t, 'poly-fault-');
  await mountReal(site, client, path, spec === 'memory' ? 'memory' : `local:${source}`, options);
  if (storm.byNames) await hostMount(t, join(source, 'below'));
  const workload = new Workload(t, storm.byNames ? join(path, 'below') : path, { seconds: 3600 });
  const probe = new Probe(t, path);
  const gaps: number[] = [];
  for (let n = 0; n < kills && workload.running; n++) {
    await sleep(randomBetween(...pause));
    client = await kill(site, client, victims(n));
    gaps.push(await probe.ask());
  }
  workload.stop();
  await assertRight(t, workload);
  const longest = Math.max(...gaps);
  t.log(
    `${String(gaps.length)} kills, median ${median(gaps).toFixed(0)} ms until the mount answers, longest ${longest.toFixed(0)} ms`,
  );
  t.is(gaps.length, kills);
  t.true(median(gaps) < 1000, 'the median recovery takes less than a second');
}

/** Both die in one go, or one after the other, in any order. */
function anyone(n: number): Victims {
  return n % 3 === 0 ? { service: true, polyd: true } : n % 3 === 1 ? { polyd: true } : { service: true };
}

real('memory: 15 kills of the service under verified I/O', (t) => storm(t, { spec: 'memory', kills: 15 }));
real('local: 15 kills of the service under verified I/O', (t) => storm(t, { spec: 'local', kills: 15 }));
real('memory: nothing cached by the kernel, 8 kills', (t) =>
  storm(t, { spec: 'memory', kills: 8, options: { attr_timeout: '0', entry_timeout: '0' } }),
);
real('local: polyd, the service, or both killed, 9 times', (t) =>
  storm(t, { spec: 'local', kills: 9, victims: anyone }),
);

real('local: files found by their names, 15 kills', (t) =>
  storm(t, { spec: 'local', kills: 15, byNames: true }),
);

real('memory: 100 kills', (t) => storm(t, { spec: 'memory', kills: 100 }), { only: full });
real(
  'local: files found by their names, 60 kills',
  (t) => storm(t, { spec: 'local', kills: 60, byNames: true }),
  { only: full },
);
real('local: 100 kills', (t) => storm(t, { spec: 'local', kills: 100 }), { only: full });
real(
  'local: nothing cached by the kernel, 60 kills',
  (t) => storm(t, { spec: 'local', kills: 60, options: { attr_timeout: '0', entry_timeout: '0' } }),
  { only: full },
);
real(
  'memory: in quick succession, 60 kills',
  (t) => storm(t, { spec: 'memory', kills: 60, pause: [0, 30] }),
  { only: full },
);
real(
  'memory: polyd, the service, or both killed, 45 times',
  (t) => storm(t, { spec: 'memory', kills: 45, victims: anyone }),
  { only: full },
);
