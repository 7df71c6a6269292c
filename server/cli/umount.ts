/** `poly umount DIR...` */
import type { CommandModule } from 'yargs';

interface Arguments {
  dir: string[];
  lazy: boolean;
  force: boolean;
  configured: boolean;
}

export const umountCommand: CommandModule<object, Arguments> = {
  command: 'umount <dir..>',
  aliases: ['unmount'],
  describe: 'unmount',
  builder: (yargs) =>
    yargs
      .usage('poly umount DIR... [--lazy] [--force]')
      .positional('dir', { type: 'string', array: true, demandOption: true, describe: 'mount points' })
      .options({
        lazy: {
          alias: 'l',
          type: 'boolean',
          default: false,
          describe: 'detach now, end when no longer in use',
        },
        force: {
          alias: 'f',
          type: 'boolean',
          default: false,
          describe: 'abort what is under way and drop it',
        },
        configured: { type: 'boolean', default: false, describe: 'DIR is a NAME: its configured path' },
      }),
  handler: async ({ dir, lazy, force, configured }) => {
    const { unmount } = await import('./umount_flow.ts');
    const { report } = await import('./errors.ts');
    let worst = 0;
    for (const directory of configured ? await configuredPaths(dir) : dir) {
      try {
        await unmount({ program: 'poly', directory, lazy, force });
      } catch (error) {
        // The others are still to be unmounted; the exit code is that of the gravest failure.
        report('poly', error);
        worst = Math.max(worst, Number(process.exitCode));
      }
    }
    process.exitCode = worst;
  },
};

/** For poly@NAME.service: where the names are mounted; nothing for those without a path or not mounted any more. */
async function configuredPaths(names: string[]): Promise<string[]> {
  const { loadConfig } = await import('../config.ts');
  const { findMount } = await import('./umount_flow.ts');
  const { filesystems } = loadConfig();
  const paths = names.map((name) => filesystems.get(name)?.path).filter((path) => path !== undefined);
  return paths.filter((path) => findMount(path) !== undefined);
}
