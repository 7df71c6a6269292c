/**
 * Where application tests run: mounts of `memory` and `local` made with `poly` as users make them, under a daemon of the
 * test file's own. `applicationTest` registers a test once for each.
 */
import test, { type ExecutionContext } from 'ava';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { poly as polyProgram, runPoly } from '../server/cli_harness.ts';
import { type Counts, countersFile, readCounters } from './counters.ts';
import { type Outcome, shell, tail } from './shell.ts';

export const libservices = ['memory', 'local'] as const;
export type Libservice = (typeof libservices)[number];

/** The long suites were asked for (npm run test:full). */
export const full = (process.env['POLY_TEST_FULL'] ?? '') !== '';
export const isRoot = process.geteuid?.() === 0;

export interface Needs {
  /** Programs, by name; without them the test is skipped. */
  programs?: string[];
  files?: string[];
  root?: boolean;
  /** Only in the long run. */
  full?: boolean;
  only?: Libservice;
  /** Options of the memory mount. */
  size?: string;
  /** For the whole test. */
  minutes?: number;
}

export interface FastOutcome extends Outcome {
  counts: Counts;
}

export class Place {
  readonly libservice: Libservice;
  /** On the mount; empty at first. */
  readonly directory: string;
  /** On the disk, for what is not under test; empty at first. */
  readonly outside: string;
  /** On the kernel's own filesystem of the same kind, to compare with: tmpfs for memory, the disk for local. */
  readonly peer: string;
  readonly mountPoint: string;

  constructor(libservice: Libservice, top: string, mountPoint: string) {
    this.libservice = libservice;
    this.mountPoint = mountPoint;
    this.directory = join(mountPoint, 'd');
    this.outside = join(top, 'outside');
    mkdirSync(this.outside);
    const shm = libservice === 'memory' && isRoot && existsSync('/dev/shm');
    this.peer = mkdtempSync(join(shm ? '/dev/shm' : top, 'poly-peer-'));
    chmodSync(this.peer, 0o755);
  }

  /** Runs a script on the mount, whatever comes of it. */
  run(script: string, seconds = 60, directory = this.directory): Promise<Outcome> {
    return shell(script, {
      directory,
      seconds,
      env: { OUTSIDE: this.outside },
      release: () => {
        abortConnection(this.mountPoint);
      },
    });
  }

  /** Runs a script under `poly run`, as run(); and what its programs did by the fast path. */
  runFast(script: string, seconds = 60, directory = this.directory): Promise<FastOutcome> {
    return this.runCounted(script, seconds, directory, [process.execPath, polyProgram, 'run', '--']);
  }

  /** Runs a script by FUSE that can itself start programs with `poly run`; what those did by the fast path. */
  runBoth(script: string, seconds = 60, directory = this.directory): Promise<FastOutcome> {
    return this.runCounted(script, seconds, directory, []);
  }

  private async runCounted(
    script: string,
    seconds: number,
    directory: string,
    under: string[],
  ): Promise<FastOutcome> {
    const counters = countersFile(this.outside);
    const outcome = await shell(script, {
      directory,
      seconds,
      env: { ...env, OUTSIDE: this.outside, POLY_COUNTERS: counters },
      under,
      release: () => {
        abortConnection(this.mountPoint);
      },
    });
    return { ...outcome, counts: readCounters(counters) };
  }

  /** Runs a script under `poly run` that must succeed, by the fast path where that can be; its output. */
  async shFast(script: string, seconds = 60, directory = this.directory): Promise<string> {
    const outcome = await this.runFast(script, seconds, directory);
    return mustSucceed(outcome, seconds);
  }

  /** Runs a script that must succeed; its output. */
  async sh(script: string, seconds = 60, directory = this.directory): Promise<string> {
    return mustSucceed(await this.run(script, seconds, directory), seconds);
  }

  /** Runs a script on the mount and on the peer; both must say the same. */
  async asOnPeer(t: ExecutionContext, script: string, seconds = 60): Promise<void> {
    const here = await this.run(script, seconds);
    const there = await this.run(script, seconds, this.peer);
    t.false(here.timedOut, tail(here.output));
    t.is(here.output, there.output);
    t.is(here.status, there.status);
  }
}

function mustSucceed(outcome: Outcome, seconds: number): string {
  if (outcome.timedOut) throw new Error(`still running after ${String(seconds)} s:\n${tail(outcome.output)}`);
  if (outcome.status !== 0) throw new Error(`status ${String(outcome.status)}:\n${tail(outcome.output)}`);
  return outcome.output;
}

/** Ends the connection of a mount, so that nobody waits for it any more. */
function abortConnection(mountPoint: string): void {
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const fields = line.split(' ');
    if (fields[4] !== mountPoint) continue;
    try {
      writeFileSync(`/sys/fs/fuse/connections/${fields[2]?.split(':')[1] ?? ''}/abort`, '1');
    } catch {
      // Gone meanwhile.
    }
  }
}

let top = '';
let env: NodeJS.ProcessEnv = {};

export async function poly(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runPoly(args, env);
  if (code !== 0) throw new Error(`poly ${args.join(' ')}: status ${String(code)}: ${stderr}`);
  return stdout;
}

test.before(async () => {
  top = mkdtempSync(join(tmpdir(), 'poly-app-'));
  // Tests act as other users below it.
  chmodSync(top, 0o755);
  env = { POLY_RUN_DIR: join(top, 'run') };
  if (obstacle({}) === undefined) await poly('start');
});

test.after.always(async () => {
  await runPoly(['stop', '--lazy'], env);
  rmSync(top, { recursive: true, force: true });
});

/** Why a test cannot run here. */
function obstacle(needs: Needs): string | undefined {
  if (!existsSync('/dev/fuse')) return 'needs /dev/fuse';
  if (needs.full === true && !full) return 'only in the full run';
  if (needs.root === true && !isRoot) return 'needs root';
  const missing = (needs.programs ?? []).find((name) => !isInstalled(name));
  if (missing !== undefined) return `needs ${missing}`;
  const file = (needs.files ?? []).find((name) => !existsSync(name));
  return file === undefined ? undefined : `needs ${file}`;
}

function isInstalled(program: string): boolean {
  return (process.env['PATH'] ?? '').split(':').some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return statSync(join(directory, program)).isFile();
    } catch {
      return false;
    }
  });
}

export type Body = (t: ExecutionContext, place: Place) => Promise<void>;

let registered = 0;

/**
 * Registers the test for every libservice, each time on a new mount. In the quick run for one of them, in turn: what each
 * does with every call the conformance suite knows, and these tests take their time.
 */
export function applicationTest(title: string, needs: Needs, body: Body): void {
  if (needs.full === true && !full) return;
  const why = obstacle(needs);
  const turn = libservices[registered++ % libservices.length] ?? 'memory';
  const chosen = needs.only !== undefined ? [needs.only] : full ? libservices : [turn];
  for (const libservice of chosen) {
    const name = `${libservice}: ${title}`;
    if (why === undefined) test.serial(name, (t) => onMount(t, libservice, needs, body));
    else test.serial.skip(`${name} (${why})`, (t) => t.pass());
  }
}

async function onMount(t: ExecutionContext, libservice: Libservice, needs: Needs, body: Body): Promise<void> {
  t.timeout((needs.minutes ?? 3) * 60_000);
  const site = mkdtempSync(join(top, `${libservice}-`));
  chmodSync(site, 0o755);
  const mountPoint = join(site, 'mnt');
  const place = new Place(libservice, site, mountPoint);
  mkdirSync(mountPoint);
  mkdirSync(join(site, 'back'));
  try {
    const spec = libservice === 'memory' ? 'memory' : `local:${join(site, 'back')}`;
    const options = libservice === 'memory' ? ['-o', `size=${needs.size ?? '1g'}`] : [];
    await poly('mount', spec, mountPoint, ...options);
    await place.sh('mkdir d', 10, mountPoint);
    await body(t, place);
    await checkService(t, mountPoint);
  } finally {
    // An honest umount first: a file that is still held by the service would make it busy.
    const ended = await runPoly(['umount', mountPoint], env);
    if (ended.code !== 0) {
      abortConnection(mountPoint);
      await runPoly(['umount', '--lazy', mountPoint], env);
      t.fail(`umount: ${ended.stderr}`);
    }
    rmSync(place.peer, { recursive: true, force: true });
    rmSync(site, { recursive: true, force: true });
  }
}

/** The service must have lived through it all. */
async function checkService(t: ExecutionContext, mountPoint: string): Promise<void> {
  const { services } = JSON.parse(await poly('status', '--json')) as {
    services: { state: string; restarts: number }[];
  };
  t.deepEqual(
    services.map(({ state, restarts }) => ({ state, restarts })),
    services.map(() => ({ state: 'running', restarts: 0 })),
    mountPoint,
  );
}
