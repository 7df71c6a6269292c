/** `poly mount SPEC [DIR]` */
import type { CommandModule } from 'yargs';
import type { MountOptions } from '../protocol.ts';

interface Arguments {
  spec: string;
  dir?: string | undefined;
  options: string[];
  share: boolean;
  pool?: string | undefined;
  configured: boolean;
}

export const mountCommand: CommandModule<object, Arguments> = {
  command: 'mount <spec> [dir]',
  describe: 'mount a file system on a directory',
  builder: (yargs) =>
    yargs
      .usage(
        'poly mount SPEC [DIR] [-o OPTIONS]\n\nSPEC: memory, memory:NAME, local:/DIR or a configured NAME[/SUB]',
      )
      .positional('spec', { type: 'string', demandOption: true, describe: 'what to mount' })
      .positional('dir', { type: 'string', describe: 'where; else the path configured for NAME' })
      .options({
        options: {
          alias: 'o',
          type: 'string',
          array: true,
          nargs: 1,
          default: [],
          defaultDescription: 'none',
          describe: 'as in mount(8): ro,size=64m,remount',
        },
        share: { type: 'boolean', default: false, describe: 'share the service of the mount above DIR' },
        pool: { type: 'string', requiresArg: true, describe: 'use the service of this pool' },
        configured: { type: 'boolean', default: false, describe: 'do nothing if NAME has no path' },
      })
      .example('poly mount local:/srv/data /mnt/data -o ro', '')
      .example('poly mount memory:build /mnt/build -o size=2g', ''),
  handler: run,
};

async function run(argv: Arguments): Promise<void> {
  const { parseOptionString, parseSettings } = await import('../options.ts');
  const { remount, ...options } = parseOptionString(argv.options.join(','));
  if (argv.share) options['share'] = true;
  if (argv.pool !== undefined) options['pool'] = argv.pool;
  // What is wrong with the options is said before anything is started.
  parseSettings(options);
  const directory = argv.dir ?? (await configuredPath(argv.spec, argv.configured));
  if (directory === undefined) return;
  if (remount === undefined) await mount(argv.spec, directory, options);
  else await (await import('./remount_flow.ts')).remountFilesystem({ directory, options });
}

async function mount(spec: string, directory: string, options: MountOptions): Promise<void> {
  const { mountFilesystem } = await import('./mount_flow.ts');
  const { print, printable } = await import('./output.ts');
  const { path, outcome, service } = await mountFilesystem({ program: 'poly', spec, directory, options });
  print(`${printable(path)}: ${spec}, service ${String(service)} (${outcome})`);
}

async function configuredPath(spec: string, mayBeMissing: boolean): Promise<string | undefined> {
  const { usage } = await import('./errors.ts');
  const { loadConfig } = await import('../config.ts');
  const filesystem = loadConfig().filesystems.get(spec);
  if (filesystem?.path !== undefined) return filesystem.path;
  if (!filesystem) throw usage(`${spec}: needs a directory (no file system of this name is configured)`);
  if (mayBeMissing) return undefined;
  throw usage(`${spec}: needs a directory (no path is configured in ${filesystem.file})`);
}
