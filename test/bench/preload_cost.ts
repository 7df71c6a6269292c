/**
 * What the preload library costs programs that never touch a poly mount, while there is one: start-up, and calls on files
 * elsewhere. A file is "far" when a look at the first component of its path tells that no mount can be meant.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { preloadLibrary, program } from './paths.ts';
import { round, type Row } from './rows.ts';
import { median, pairedRatio } from './statistics.ts';
import { output } from './systems/process.ts';
import type { PolyDaemon } from './systems/poly.ts';

/** Ours may cost so much; and what the same thing measured twice differs by cannot be told from nothing. */
const GOAL = 1.05;
const CALLS = 40_000;
const STARTS = 200;

export interface PreloadSettings {
  daemon: PolyDaemon;
  /** A directory for a mount point; a file beside it is "near". */
  scratch: string;
  /** A directory whose path begins with another component. */
  far: string;
  rounds: number;
  quick: boolean;
}

type Times = Record<string, number>;
interface Round {
  without: Times;
  again: Times;
  with: Times;
}

export async function runPreloadCost(settings: PreloadSettings): Promise<Row[]> {
  const mount = join(settings.scratch, 'preload');
  const near = join(settings.scratch, 'near');
  const far = join(settings.far, 'far');
  for (const dir of [mount, near, far]) mkdirSync(dir, { recursive: true });
  await settings.daemon.command('mount', 'memory', mount, '--pool', 'bench-preload');
  try {
    const rounds: Round[] = [];
    for (let i = 0; i < settings.rounds; i++) {
      const parts = [
        await starts(settings),
        await calls(settings, 'far', far),
        await calls(settings, 'near', near),
      ];
      const all = (which: keyof Round): Times =>
        Object.assign({}, ...parts.map((part) => part[which])) as Times;
      rounds.push({ without: all('without'), again: all('again'), with: all('with') });
    }
    return Object.keys(rounds[0]?.with ?? {}).map((name) => rowOf(name, rounds));
  } finally {
    await settings.daemon.command('umount', mount);
    rmSync(far, { recursive: true, force: true });
  }
}

async function starts({ daemon, quick }: PreloadSettings): Promise<Round> {
  const attach = daemon.fast.environment['POLY_ATTACH'] ?? '';
  const count = String(quick ? STARTS / 4 : STARTS);
  const times = await run(['start', count, preloadLibrary, attach], {});
  const one = (name: string): Times => ({ 'start of /bin/true': times[name] ?? NaN });
  return { without: one('without'), again: one('again'), with: one('with') };
}

async function calls({ daemon, quick }: PreloadSettings, name: string, dir: string): Promise<Round> {
  const args = ['calls', String(quick ? CALLS / 4 : CALLS), dir];
  const named = async (env: NodeJS.ProcessEnv): Promise<Times> =>
    Object.fromEntries(
      Object.entries(await run(args, env)).map(([call, ns]) => [`${call}, ${name} file`, ns]),
    );
  const without = await named({});
  const preloaded = await named(daemon.fast.environment);
  return { without, with: preloaded, again: await named({}) };
}

async function run(args: string[], env: NodeJS.ProcessEnv): Promise<Times> {
  const text = await output(program('poly-bench-preload'), args, { env: { ...process.env, ...env } });
  const lines = text.trim().split('\n');
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.lastIndexOf(' ');
      return [line.slice(0, at), Number(line.slice(at + 1))];
    }),
  );
}

function rowOf(name: string, rounds: readonly Round[]): Row {
  const of = (which: keyof Round): number[] => rounds.map((one) => one[which][name] ?? NaN);
  const noise = Math.max(...of('again').map((again, i) => ratioEitherWay(again, of('without')[i] ?? NaN)));
  const plain = rounds.map((_, i) => ((of('without')[i] ?? NaN) + (of('again')[i] ?? NaN)) / 2);
  return {
    experiment: 'preload-cost',
    case: name,
    unit: 'ns',
    ours: round(median(of('with'))),
    peer: round(median(plain)),
    peerName: 'without the library',
    ratio: round(pairedRatio(of('with'), plain)),
    goal: round(Math.max(GOAL, noise)),
  };
}

function ratioEitherWay(a: number, b: number): number {
  return Math.max(a / b, b / a);
}
