/** What the shell may complete beyond commands and options: mount points, and programs. */
import { readdirSync } from 'node:fs';
import { delimiter } from 'node:path';
import { isPoly, readMountinfo } from '../mountinfo.ts';

type Done = (completions: string[]) => void;
type Filter = (onCompleted?: (error: Error | null, defaults: string[] | undefined) => void) => void;

export function completions(
  current: string,
  argv: { _: (string | number)[] },
  filter: Filter,
  done: Done,
): void {
  const command = String(argv._[1] ?? '');
  if (!current.startsWith('-') && ['umount', 'unmount', 'stat', 'release'].includes(command)) {
    done(
      readMountinfo()
        .filter(isPoly)
        .map((line) => line.path),
    );
    return;
  }
  if (command === 'run' && !current.startsWith('-')) {
    // The program's own words are for the shell to complete as files.
    const isProgram = argv._.slice(2).every((word) => word === current);
    done(isProgram && current !== '' && !current.includes('/') ? programs(current) : []);
    return;
  }
  filter((error, defaults) => {
    // Paths are the shell's own to complete.
    done(error ? [] : (defaults ?? []));
  });
}

/** Names in PATH that begin so. */
function programs(prefix: string): string[] {
  const names = (process.env['PATH'] ?? '').split(delimiter).flatMap((directory) => {
    try {
      return readdirSync(directory);
    } catch {
      return [];
    }
  });
  return [...new Set(names.filter((name) => name.startsWith(prefix)))];
}
