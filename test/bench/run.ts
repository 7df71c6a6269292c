/**
 * The benchmark: experiments x systems x clients, in interleaved rounds. Every round starts each system afresh, then each
 * experiment goes through all systems before the next begins, in an order that turns from round to round: what
 * disturbs the machine disturbs all of them. Ratios are of the same round.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runCalls } from './calls.ts';
import { runCeph } from './ceph.ts';
import { plotCopy, runCopy } from './copy.ts';
import { plotFast } from './fast_experiments.ts';
import { plotIpc, runIpc } from './ipc.ts';
import { type Experiment, experiments, type FigureName, type RunSettings } from './experiments.ts';
import { machine } from './machine.ts';
import { runQueue } from './queue.ts';
import { figureTable, rowTable } from './report.ts';
import { type Figure, met, type Row, rowsOf } from './rows.ts';
import { runService, type ServiceExperiment, serviceExperiments } from './service_cost.ts';
import { Bindfs } from './systems/bindfs.ts';
import { FuseNative } from './systems/fuse_native.ts';
import { Memfs } from './systems/memfs.ts';
import { Poly, PolyDaemon, PolyWay, SharedInstance } from './systems/poly.ts';
import type { System } from './systems/system.ts';
import { rowsOnly, type Standalone, type StandaloneResult, withPlots } from './standalone.ts';
import { makeTar } from './tree.ts';

/** Experiments on parts alone: no system is mounted for them. */
const standalone: Record<string, Standalone> = {
  calls: rowsOnly(runCalls),
  'ceph-names': runCeph('names'),
  'ceph-data': runCeph('data'),
  'ceph-programs': runCeph('programs'),
  copy: withPlots(runCopy, plotCopy),
  ipc: withPlots(runIpc, plotIpc),
  queue: runQueue,
};
/** One name for several: the comparison of the fast path with FUSE, and of what there is of Ceph. */
const groups: Record<string, string[]> = {
  fast: [...experiments.filter(({ kind }) => kind === 'fast').map(({ name }) => name), 'preload-cost'],
  ceph: ['ceph-names', 'ceph-data', 'ceph-programs'],
};
const allNames: string[] = [
  ...experiments.map(({ name }) => name),
  ...serviceExperiments,
  ...Object.keys(standalone),
];

const HELP = `npm run bench -- [NAMES] [--json FILE] [--rounds N] [--quick] [--systems LIST] [--backing DIR] [--plots DIR]

  NAMES          ${allNames.join(', ')} (default: all);
                 fast: everything about the fast path but ipc; ceph: all of Ceph
  --json FILE    write the rows, the machine and the versions
  --rounds N     rounds of each experiment (default 5; tree 3)
  --quick        fewer operations and rounds, a smaller tree: to see that everything works
  --systems LIST only these, by name: poly fast,poly memory,poly local,libfuse3-mt,libfuse3-single,fuse-native,bindfs
  --backing DIR  where local systems keep their files (default /dev/shm: the disk is not what is compared)
  --plots DIR    write what has a plot as SVG files`;

interface Arguments {
  names: string[];
  json: string | undefined;
  rounds: number | undefined;
  quick: boolean;
  systems: string[] | undefined;
  backing: string;
  plots: string | undefined;
}

/** After SIGINT or SIGTERM the run ends between two measurements, with everything unmounted. npm and timeout send it twice. */
let interrupted = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => (interrupted = true));

/** One line that overwrites itself, on a terminal only. */
function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

function usage(message: string): never {
  process.stderr.write(`bench: ${message}\n`);
  process.exit(1);
}

function parse(): Arguments {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'string' },
      rounds: { type: 'string' },
      quick: { type: 'boolean', default: false },
      systems: { type: 'string' },
      backing: { type: 'string', default: '/dev/shm' },
      plots: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${HELP}\n`);
    process.exit(0);
  }
  const asked = positionals.flatMap((name) => groups[name] ?? [name]);
  const unknown = asked.find((name) => !allNames.includes(name));
  if (unknown !== undefined) usage(`${unknown}: no such experiment (${allNames.join(', ')})`);
  const rounds = values.rounds === undefined ? undefined : Number(values.rounds);
  if (rounds !== undefined && !(Number.isInteger(rounds) && rounds > 0))
    usage('--rounds: must be a whole number');
  const { json, quick, backing, plots } = values;
  const names = asked.length > 0 ? asked : allNames;
  return { names, json, rounds, quick, systems: values.systems?.split(','), backing, plots };
}

/** The systems that can run here, and of the others why not. */
async function available(
  candidates: System[],
): Promise<{ systems: System[]; missing: Record<string, string> }> {
  const systems: System[] = [];
  const missing: Record<string, string> = {};
  for (const system of candidates) {
    const reason = await system.unavailable();
    if (reason === undefined) systems.push(system);
    else missing[system.name] = reason;
  }
  return { systems, missing };
}

/** One measurement: an experiment on one system; a failure is reported and costs only this figure of this round. */
async function measure(
  experiment: Experiment,
  place: { mount: string; backing: string },
  system: System,
  settings: RunSettings,
): Promise<Record<string, number>> {
  const work = system.name.replaceAll(' ', '-');
  const local = system.family === 'local';
  const dir = join(place.mount, work);
  const backing = local ? join(place.backing, work) : undefined;
  try {
    mkdirSync(dir, { recursive: true });
    return await experiment.run({ dir, backing, fast: system.fast }, settings);
  } catch (error) {
    if (interrupted) return {};
    process.exitCode = 1;
    const name = `${experiment.name} on ${system.name}, ${String(settings.clients)} client(s)`;
    progress('');
    process.stderr.write(`bench: ${name}: ${String(error)}\n`);
    return {};
  }
}

/** Starts the systems, leaving out one that does not come up, and stops them when `work` is done. */
async function withSystems<T>(
  systems: readonly System[],
  scratch: string,
  backing: string,
  work: (up: { system: System; mount: string }[]) => Promise<T>,
): Promise<T> {
  const up: { system: System; mount: string }[] = [];
  try {
    for (const system of systems) {
      const mount = join(scratch, 'mnt', system.mountName ?? system.name.replaceAll(' ', '-'));
      mkdirSync(mount, { recursive: true });
      try {
        await system.start(mount, backing);
        up.push({ system, mount });
      } catch (error) {
        process.stderr.write(`bench: ${system.name}: ${String(error)}\n`);
        await system.stop();
      }
    }
    return await work(up);
  } finally {
    for (const { system } of up) await system.stop();
  }
}

class Figures {
  readonly #figures = new Map<string, Figure>();

  add(figure: FigureName, system: System, clients: number, value: number | undefined): void {
    if (value === undefined) return;
    const key = `${figure.name} ${system.family} ${String(clients)} ${figure.statistic ?? ''}`;
    let entry = this.#figures.get(key);
    if (!entry) {
      entry = {
        experiment: figure.name,
        family: system.family,
        clients,
        unit: figure.unit,
        ...(figure.statistic !== undefined && { statistic: figure.statistic }),
        values: new Map(),
      };
      this.#figures.set(key, entry);
    }
    const values = entry.values.get(system.name) ?? [];
    values.push(value);
    entry.values.set(system.name, values);
  }

  all(): Figure[] {
    return [...this.#figures.values()];
  }
}

interface Bench {
  args: Arguments;
  scratch: string;
  backing: string;
  tar: string;
  figures: Figures;
}

function clientCounts({ kind, clients }: Experiment, quick: boolean): readonly number[] {
  if (clients !== undefined) return clients;
  if (kind !== 'fast') return [1, 2];
  return quick ? [1, 4] : [1, 2, 4, 8];
}

async function round(
  bench: Bench,
  index: number,
  systems: readonly System[],
  wanted: Experiment[],
): Promise<void> {
  const turn = index % Math.max(1, systems.length);
  const order = [...systems.slice(turn), ...systems.slice(0, turn)];
  await withSystems(order, bench.scratch, bench.backing, async (up) => {
    for (const experiment of wanted) {
      for (const clients of clientCounts(experiment, bench.args.quick)) {
        const settings = { clients, quick: bench.args.quick, tar: bench.tar };
        for (const { system, mount } of up) {
          if (interrupted) throw new Error('interrupted');
          progress(`round ${String(index + 1)}: ${experiment.name} ${system.name}`);
          const values = await measure(experiment, { mount, backing: bench.backing }, system, settings);
          for (const figure of experiment.figures)
            bench.figures.add(figure, system, clients, values[figure.statistic ?? figure.name]);
        }
      }
    }
  });
  progress('');
}

async function runSystems(bench: Bench, systems: readonly System[]): Promise<void> {
  for (const kind of ['operation', 'tree', 'fast'] as const) {
    const wanted = experiments.filter(({ name, kind: is }) => is === kind && bench.args.names.includes(name));
    if (wanted.length === 0) continue;
    if (kind === 'tree') bench.tar = await makeTar(bench.scratch, bench.args.quick ? 1_000 : 10_000);
    const rounds = bench.args.rounds ?? (bench.args.quick ? 1 : kind === 'tree' ? 3 : 5);
    const of = systems.filter((system) => isFor(system, kind));
    for (let i = 0; i < rounds; i++) await round(bench, i, of, wanted);
  }
}

function isFor({ family }: System, kind: Experiment['kind']): boolean {
  return (family === 'fast') === (kind === 'fast');
}

/** Those that some experiment needs. */
function candidates(args: Arguments, scratch: string, daemon: PolyDaemon): System[] {
  const shared = new SharedInstance(daemon);
  const needsService = serviceExperiments.some((name) => args.names.includes(name));
  return [
    new Poly('memory', daemon),
    new Memfs('libfuse3-mt'),
    new Memfs('libfuse3-single', ['single']),
    new FuseNative(join(scratch, 'fuse-native')),
    new Poly('local', daemon),
    new Bindfs(),
    new PolyWay('fast', shared),
    new PolyWay('fuse', shared),
    new Memfs('libfuse3-mt', [], 'fast'),
  ].filter((system) => {
    // The service's own cost needs no peers.
    const service = needsService && system instanceof Poly && system.family === 'memory';
    const wanted = experiments.some(({ name, kind }) => isFor(system, kind) && args.names.includes(name));
    return (service || wanted) && (args.systems?.includes(system.name) ?? true);
  });
}

async function main(): Promise<void> {
  const args = parse();
  const about = machine(); // the load before we add to it
  const scratch = mkdtempSync(join(tmpdir(), 'poly-bench-'));
  const backing = mkdtempSync(join(args.backing, 'poly-bench-'));
  const daemon = new PolyDaemon(join(scratch, 'run'));
  const bench: Bench = { args, scratch, backing, tar: '', figures: new Figures() };
  try {
    const { systems, missing } = await available(candidates(args, scratch, daemon));
    const versions: Record<string, string> = { node: process.version };
    for (const system of systems) versions[system.name] = await system.version();
    await runSystems(bench, systems);
    const rows: Row[] = bench.figures.all().flatMap((figure) => rowsOf(figure, systems));
    for (const name of systems.some(({ ours }) => ours) ? serviceExperiments : []) {
      if (args.names.includes(name)) rows.push(...(await service(name, bench, daemon)));
    }
    const parts = await runStandalone(args);
    for (const part of parts) Object.assign(missing, part.missing);
    const result = { date: new Date().toISOString(), machine: about, versions, missing, rows };
    print(result, bench.figures.all(), systems);
    savePlots(args, plotFast(bench.figures.all()));
    for (const { text } of parts) if (text) process.stdout.write(`${text}\n\n`);
    rows.push(...parts.flatMap((part) => part.rows));
    if (args.json !== undefined) writeFileSync(args.json, `${JSON.stringify(result, null, 2)}\n`);
  } finally {
    await daemon.stop();
    rmSync(backing, { recursive: true, force: true });
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function service(name: ServiceExperiment, bench: Bench, daemon: PolyDaemon): Promise<Row[]> {
  const scratch = join(bench.scratch, 'service');
  try {
    const { rounds, quick } = bench.args;
    const settings = { daemon, scratch, far: bench.backing, rounds: rounds ?? (quick ? 2 : 5), quick };
    return await runService(name, settings);
  } catch (error) {
    process.exitCode = 1;
    process.stderr.write(`bench: ${name}: ${String(error)}\n`);
    return [];
  }
}

/** Their tables are printed instead of their many rows. */
async function runStandalone(args: Arguments): Promise<StandaloneResult[]> {
  const results: StandaloneResult[] = [];
  for (const [name, run] of Object.entries(standalone)) {
    if (!args.names.includes(name)) continue;
    progress(name);
    const result = await run({
      rounds: args.rounds ?? (args.quick ? 1 : 3),
      quick: args.quick,
      interrupted: () => interrupted,
    });
    results.push(result);
    savePlots(args, result.plots);
  }
  progress('');
  return results;
}

function savePlots({ plots }: Arguments, files: Record<string, string>): void {
  if (plots === undefined) return;
  mkdirSync(plots, { recursive: true });
  for (const [file, svg] of Object.entries(files)) writeFileSync(join(plots, file), svg);
}

interface Result {
  machine: ReturnType<typeof machine>;
  versions: Record<string, string>;
  missing: Record<string, string>;
  rows: Row[];
}

function print(result: Result, figures: readonly Figure[], systems: readonly System[]): void {
  const { cpu, cores, kernel, distribution, load } = result.machine;
  const where = `${cpu}, ${String(cores)} cores, ${distribution}, kernel ${kernel}, load ${String(load)}`;
  const versions = Object.entries(result.versions).map(([name, version]) => `${name}: ${version}`);
  process.stdout.write(`${where}\n${versions.join(' · ')}\n`);
  const missing = Object.entries(result.missing).map(
    ([name, reason]) => `not measured: ${name}: ${reason}\n`,
  );
  process.stdout.write(`${missing.join('')}\n`);
  if (figures.length > 0) process.stdout.write(`${figureTable(figures, systems)}\n\n`);
  if (result.rows.length === 0) return;
  const goals = result.rows.filter((row) => row.goal !== null);
  const summary = `${String(goals.filter(met).length)} of ${String(goals.length)} goals met`;
  process.stdout.write(`${rowTable(result.rows)}\n\n${summary}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
