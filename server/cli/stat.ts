/** `poly stat`: what the services did: operations, errors, latencies; and for whom. */
import type { CommandModule } from 'yargs';
import type { InstanceStats, OpStats } from '../native.ts';
import type { StatsResult } from '../protocol.ts';
import { quantile } from './histogram.ts';
import { type Column, duration, print, printable, printJson, table } from './output.ts';

interface Arguments {
  path?: string | undefined;
  clients: boolean;
  json: boolean;
}

export const statCommand: CommandModule<object, Arguments> = {
  command: 'stat [path]',
  describe: 'show operations, errors and latencies, or attached processes',
  builder: (yargs) =>
    yargs
      .usage(
        'poly stat [PATH] [--clients] [--json]\n\n' +
          'Latencies are measured in the service, from request to reply.',
      )
      .positional('path', { type: 'string', describe: 'mount point; default: all' })
      .option('clients', {
        type: 'boolean',
        default: false,
        describe: 'the processes that use the fast path (see: poly run)',
      })
      .option('json', { type: 'boolean', default: false, describe: 'as JSON, with the histograms' }),
  handler: async ({ path, clients, json }) => {
    const { ANSWER_MS, withPolyd } = await import('./client.ts');
    const { mountPoint } = await import('./umount_flow.ts');
    const params = path === undefined ? {} : { path: mountPoint(path) };
    const stats = await withPolyd((polyd) => polyd.request('stats', params, ANSWER_MS));
    for (const service of stats.silent) {
      process.stderr.write(`poly: service ${String(service)} does not answer\n`);
    }
    if (clients) showClients(stats, json);
    else if (json) printJson(stats);
    else show(stats);
  },
};

function show(stats: StatsResult): void {
  const blocks: string[] = [];
  for (const service of stats.services) {
    const load = `${String(service.threadsBusy)} of ${String(service.threads)} threads busy`;
    for (const instance of service.instances) {
      const { nodes, openFiles, lendableFiles, locks, parkedLockWaits: waits } = instance;
      const files = `${plural(openFiles, 'open file')} (${String(lendableFiles)} lendable)`;
      const counts = `${plural(nodes, 'node')}, ${files}, ${plural(locks, 'lock')}`;
      const waiting = waits > 0 ? `, ${String(waits)} waiting for locks` : '';
      const silent = silence(instance);
      blocks.push(
        `${printable(instance.path)}: service ${String(service.service)} (${load}), ${counts}${waiting}\n` +
          (silent === undefined ? '' : `backend: ${silent}\n`) +
          operations(instance.ops),
      );
    }
  }
  if (blocks.length > 0) print(blocks.join('\n\n'));
  else if (stats.silent.length === 0) process.stderr.write('poly: nothing is mounted\n');
}

/** What there is to say of a backend that does not answer. */
export function silence({ silentSeconds, released }: InstanceStats): string | undefined {
  if (silentSeconds === undefined) return undefined;
  const since = new Date(Date.now() - silentSeconds * 1000).toISOString();
  return `not answering since ${since}${released === true ? '; calls fail until it does' : ''}`;
}

type Client = { service: number } & StatsResult['services'][number]['clients'][number];

const clientColumns: Column<Client>[] = [
  { title: 'PID', value: (client) => client.pid, align: 'right' },
  { title: 'COMMAND', value: (client) => client.command || '-' },
  { title: 'UID', value: (client) => client.uid, align: 'right' },
  { title: 'SERVICE', value: (client) => client.service, align: 'right' },
  { title: 'INSTANCES', value: (client) => client.instances?.join(',') || '-' },
  { title: 'FILES', value: (client) => client.openFiles, align: 'right' },
  { title: 'CALLS', value: (client) => client.calls, align: 'right' },
  { title: 'DECLINED', value: (client) => client.declined, align: 'right' },
  {
    title: 'MEAN',
    value: (client) => latency(client.totalNs && client.totalNs / client.calls),
    align: 'right',
  },
  {
    title: 'P99',
    value: (client) => latency(client.histogram && quantile(client.histogram, 0.99)),
    align: 'right',
  },
];

/** "-" before the first call, and where the service does not measure it. */
function latency(ns: number | undefined): string {
  return ns ? duration(ns) : '-';
}

function showClients(stats: StatsResult, json: boolean): void {
  const clients = stats.services.flatMap(({ service, clients: attached }) =>
    attached.map((client) => ({ service, ...client })),
  );
  clients.sort((a, b) => b.calls - a.calls || a.pid - b.pid);
  if (json) printJson(clients);
  else print(table(clientColumns, clients));
}

function operations(all: OpStats[]): string {
  const ops = all.filter((op) => op.count > 0).sort((a, b) => b.count - a.count);
  if (ops.length === 0) return '(no operations yet)';
  return table(
    [
      { title: 'OPERATION', value: (op) => op.op },
      { title: 'COUNT', value: (op) => op.count, align: 'right' },
      { title: 'ERRORS', value: (op) => op.errors, align: 'right' },
      { title: 'MEAN', value: (op) => duration(op.totalNs / op.count), align: 'right' },
      { title: 'P50', value: (op) => duration(quantile(op.histogram, 0.5)), align: 'right' },
      { title: 'P99', value: (op) => duration(quantile(op.histogram, 0.99)), align: 'right' },
    ],
    ops,
  );
}

function plural(count: number, noun: string): string {
  return `${String(count)} ${noun}${count === 1 ? '' : 's'}`;
}
