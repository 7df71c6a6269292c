/** `poly status`: the daemon, the keeper, the services. Exit code 3 when the daemon is not running. */
import type { CommandModule } from 'yargs';
import type { KeeperStatus, ServiceInfo, StatsResult, StatusResult } from '../protocol.ts';
import { bytes, type Column, print, printable, printJson, since, table } from './output.ts';
import { silence } from './stat.ts';

const columns: Column<ServiceInfo>[] = [
  { title: 'SERVICE', value: (service) => service.id, align: 'right' },
  { title: 'PID', value: (service) => service.pid, align: 'right' },
  { title: 'POOL', value: (service) => service.pool ?? '-' },
  { title: 'STATE', value: (service) => service.state },
  { title: 'MOUNTS', value: (service) => service.mounts, align: 'right' },
  { title: 'RESTARTS', value: (service) => service.restarts, align: 'right' },
  { title: 'THREADS', value: (service) => service.threads ?? '-', align: 'right' },
  {
    title: 'MEMORY',
    value: (service) => (service.rss === undefined ? '-' : bytes(service.rss)),
    align: 'right',
  },
  { title: 'AGE', value: (service) => since(service.startedAt), align: 'right' },
];

export const statusCommand: CommandModule<object, { json: boolean }> = {
  command: 'status',
  describe: 'show the daemon, the keeper and the services',
  builder: (yargs) =>
    yargs
      .usage('poly status [--json]\n\nEnds with status 3 when the daemon is not running.')
      .option('json', { type: 'boolean', default: false, describe: 'as JSON' }),
  handler: async ({ json }) => {
    const { ANSWER_MS, connectIfRunning, notRunning } = await import('./client.ts');
    const { exitCodes } = await import('./errors.ts');
    const polyd = await connectIfRunning();
    if (!polyd && json) {
      printJson({ running: false });
      process.exitCode = exitCodes.notRunning;
      return;
    }
    if (!polyd) throw notRunning();
    const status = await polyd.request('status', {}, ANSWER_MS);
    // Of services that answer; one that does not has its state in the table.
    const stats = await polyd.request('stats', {}, ANSWER_MS).catch(() => ({ services: [] }));
    polyd.end();
    const silent = stats.services.flatMap(({ instances }) => instances).filter((one) => silence(one));
    if (json) printJson({ running: true, ...status, silent: silent.map(described) });
    else show(status, silent);
  },
};

type Silent = StatsResult['services'][number]['instances'][number];

function described({ path, silentSeconds, released }: Silent) {
  return { path, silentSeconds, released };
}

function show(status: StatusResult, silent: Silent[]): void {
  const { keeper, services } = status;
  const entries = `${String(status.table.entries)} of ${String(status.table.capacity)} entries`;
  print(`daemon   version ${status.version}, pid ${String(status.pid)}, up ${since(status.startedAt)}`);
  print(`keeper   ${describeKeeper(keeper)}`);
  print(`mounts   ${entries}`);
  print(`run dir  ${printable(status.runDir)}`);
  for (const one of silent) print(`backend  ${printable(one.path)}: ${silence(one) ?? ''}`);
  if (services.length > 0) print(`\n${table(columns, services)}`);
}

function describeKeeper({ pid, fds, names, dropped, restarts }: KeeperStatus): string {
  if (pid === 0)
    return 'died, another one is being started; a service that dies before then loses its mounts';
  const parts = [`pid ${String(pid)}`, `${String(fds)} descriptors in ${String(names)} names`];
  if (dropped > 0) parts.push(`${String(dropped)} dropped`);
  if (restarts > 0) parts.push(`died and replaced ${String(restarts)} time${restarts === 1 ? '' : 's'}`);
  return parts.join(', ');
}
