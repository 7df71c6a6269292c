/** `poly demo ceph` */
import type { CommandModule } from 'yargs';

interface Arguments {
  what: 'ceph';
  stop: boolean;
}

export const demoCommand: CommandModule<object, Arguments> = {
  command: 'demo <what>',
  describe: 'show tenants of a cluster: ceph',
  builder: (yargs) =>
    yargs
      .usage(
        'poly demo ceph [--stop]\n\n' +
          'Brings up a Ceph cluster on this machine, with all its state in one directory,\n' +
          'mounts the directories of two of its tenants, and shows them. Cluster and\n' +
          'mounts stay until `poly demo ceph --stop`, which leaves nothing behind.',
      )
      .positional('what', { choices: ['ceph'] as const, demandOption: true, describe: 'what to show' })
      .option('stop', { type: 'boolean', default: false, describe: 'take it away again' }),
  handler: async ({ stop }) => {
    const { startCephDemo, stopCephDemo } = await import('./demo_ceph.ts');
    await (stop ? stopCephDemo() : startCephDemo());
  },
};
