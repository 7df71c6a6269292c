/** `poly config check [FILE...]` */
import type { CommandModule } from 'yargs';

interface Arguments {
  action: string;
  file?: string[] | undefined;
  json: boolean;
}

export const configCommand: CommandModule<object, Arguments> = {
  command: 'config <action> [file..]',
  describe: 'check the configuration',
  builder: (yargs) =>
    yargs
      .usage(
        'poly config check [FILE...] [--json]\n\nWithout FILE: all files polyd reads, as poly.toml(5) says.',
      )
      .positional('action', {
        choices: ['check'],
        type: 'string',
        demandOption: true,
        describe: 'what to do',
      })
      .positional('file', { type: 'string', array: true, describe: 'TOML files' })
      .option('json', { type: 'boolean', default: false, describe: 'print what was understood as JSON' }),
  handler: async ({ file = [], json }) => {
    const { configDirectories, loadConfig } = await import('../config.ts');
    const { print, printJson } = await import('./output.ts');
    const config = file.length > 0 ? loadConfig(file) : loadConfig();
    const filesystems = [...config.filesystems.values()];
    const pools = [...config.pools.values()];
    if (json) {
      printJson({ files: config.files, filesystems, pools });
      return;
    }
    if (config.files.length === 0) print(`no files in ${configDirectories().join(', ')}`);
    for (const name of config.files) print(`${name}: ${contents(name, filesystems, pools)}`);
  },
};

/** "ok, file systems: web, scratch; pools: tenant-a" */
function contents(
  file: string,
  filesystems: { name: string; file: string }[],
  pools: { name: string; file: string }[],
): string {
  const names = (entries: { name: string; file: string }[]): string =>
    entries
      .filter((entry) => entry.file === file)
      .map((entry) => entry.name)
      .join(', ') || 'none';
  return `ok (file systems: ${names(filesystems)}; pools: ${names(pools)})`;
}
