/**
 * Hostile clients of the fast path, of several users, on a real service: it lives through whatever they write and send,
 * gives back what they took, and a program of another user gets right answers, as soon as if they did nothing but compute.
 */
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { countersFile, readCounters } from '../applications/counters.ts';
import { poly, run } from '../server/cli_harness.ts';
import { status, temporary, type Site } from '../server/helpers.ts';
import { mountReal, realSite, sh } from '../server/real.ts';
import { assertNothingLeft, census, full, programs, real, runningService, whyNot } from './harness.ts';

const ATTACK = join(programs, 'poly-fast-attack');
const VICTIM = join(programs, 'poly-fast-victim');
const USER = '1000';

/** What the processor is to the victim: it has to share it with as many processes either way. */
interface Delay {
  median: number;
  p99: number;
}

async function victim(t: ExecutionContext, site: Site, directory: string, seconds: number): Promise<Delay> {
  const counters = countersFile(temporary(t));
  chmodSync(join(counters, '../..'), 0o755);
  const who = ['--reuid', USER, '--regid', USER, '--clear-groups'];
  const under = [process.execPath, poly, 'run', '--'];
  const { code, stdout, stderr } = await run(
    'setpriv',
    [...who, ...under, VICTIM, directory, String(seconds)],
    { ...site.env, POLY_COUNTERS: counters },
    { timeoutMs: (seconds + 30) * 1000 },
  );
  t.is(code, 0, `${stdout}${stderr}`);
  t.true(readCounters(counters).served > 100, 'by the fast path');
  t.log(stdout.trim());
  const [, median, p99] = /median ([\d.]+) us, p99 ([\d.]+) us/.exec(stdout) ?? [];
  return { median: Number(median), p99: Number(p99) };
}

async function hostile(t: ExecutionContext, seconds: number): Promise<void> {
  t.timeout(seconds * 3000 + 120_000);
  const { site, root } = realSite(t);
  chmodSync(root, 0o755);
  const client = await site.start();
  const path = join(root, 'm');
  const { service, instance } = await mountReal(site, client, path, 'memory');
  const all = { site, client, mounts: [{ path, service }] };
  await sh(`mkdir -m 777 ${path}/junk; mkdir ${path}/v; chown ${USER} ${path}/v`);
  const pid = await runningService(client);
  const seed = process.env['POLY_FAULT_SEED'];
  const attack = async (time: number, ...more: string[]): Promise<void> => {
    const words = [
      site.dir.attachSocket(service),
      path,
      String(instance),
      '--seconds',
      String(time),
      ...more,
    ];
    const { code, stdout } = await run(ATTACK, words, {}, { timeoutMs: (time + 30) * 1000 });
    t.log(stdout.trim());
    t.is(code, 0, stdout);
  };
  await victim(t, site, join(path, 'v'), 0.2);
  const before = await census(all);
  const beside = async (time: number, ...more: string[]): Promise<Delay> => {
    const [delay] = await Promise.all([victim(t, site, join(path, 'v'), time - 0.5), attack(time, ...more)]);
    return delay;
  };
  const computing = await beside(2.5, '--spin');
  const attacked = await beside(seconds, ...(seed === undefined ? [] : ['--seed', seed]));
  // Generous: two processors that other tests share, too. A stall of the service is seconds.
  t.true(attacked.median <= 3 * computing.median + 200, 'median');
  t.true(attacked.p99 <= 3 * computing.p99 + 20_000, '99th percentile');
  t.is(await runningService(client), pid);
  t.is((await status(client)).services[0]?.restarts, 0);
  await assertNothingLeft(t, all, before);
}

const reason = whyNot(ATTACK, VICTIM);
real('hostile clients harm neither the service nor other users', (t) => hostile(t, 3.5), { reason });
real('hostile clients for a minute', (t) => hostile(t, 60), { only: full, reason });
