/** `poly ls`: what is mounted. */
import type { CommandModule } from 'yargs';
import type { MountInfo } from '../protocol.ts';
import type { Column } from './output.ts';

const columns: Column<MountInfo>[] = [
  { title: 'PATH', value: (mount) => mount.path },
  { title: 'FILESYSTEM', value: (mount) => mount.spec },
  { title: 'TYPE', value: (mount) => mount.type },
  { title: 'SERVICE', value: (mount) => mount.service, align: 'right' },
  { title: 'INSTANCE', value: (mount) => mount.instance, align: 'right' },
  { title: 'POOL', value: (mount) => mount.pool ?? '-' },
  { title: 'OUTCOME', value: (mount) => mount.outcome },
  { title: 'MODE', value: (mount) => (mount.readOnly ? 'ro' : 'rw') },
  { title: 'STATE', value: (mount) => mount.state },
  { title: 'SHARES', value: (mount) => mount.shares.join(',') || '-' },
];

export const lsCommand: CommandModule<object, { json: boolean }> = {
  command: 'ls',
  aliases: ['list'],
  describe: 'list what is mounted',
  builder: (yargs) =>
    yargs.usage('poly ls [--json]').option('json', { type: 'boolean', default: false, describe: 'as JSON' }),
  handler: async ({ json }) => {
    const { ANSWER_MS, withPolyd } = await import('./client.ts');
    const { print, printJson, table } = await import('./output.ts');
    const mounts = await withPolyd((polyd) => polyd.request('mount.list', {}, ANSWER_MS));
    mounts.sort((a, b) => (a.path < b.path ? -1 : 1));
    if (json) printJson(mounts);
    else if (mounts.length > 0) print(table(columns, mounts));
    else process.stderr.write('poly: nothing is mounted\n');
  },
};
