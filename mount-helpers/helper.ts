/**
 * The protocol between mount(8)/umount(8) and their helpers:
 *
 *   mount.poly SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE.SUBTYPE]
 *   umount.poly DIR [-flnrv] [-N NAMESPACE] [-t TYPE.SUBTYPE]
 *
 * A helper ends with mount(8)'s exit status: 1 usage or permission, 2 system error, 4 bug, 8 interrupt, 32 failure.
 */
import { errorCode } from '../server/errors.ts';
import { exitCodes, report, usage } from '../server/cli/errors.ts';

export interface HelperArguments {
  operands: string[];
  /** Letters given: s, f, n, v for mount; f, l, n, r, v for umount. */
  flags: Set<string>;
  options: string[];
  namespace?: string;
}

/** Letters with a value. -t names the type the helper was called for; it tells us nothing new. */
const WITH_VALUE = new Set(['o', 'N', 't', 'O']);

/** Parses in getopt(3)'s manner: letters may be joined (-nv), values may be joined (-oro), "--" ends options. */
export function parseArguments(args: string[], letters: string, form: string): HelperArguments {
  const parsed: HelperArguments = { operands: [], flags: new Set(), options: [] };
  const rest = [...args];
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === '--') {
      parsed.operands.push(...rest.splice(0));
    } else if (arg.startsWith('-') && arg !== '-') {
      parseLetters(arg.slice(1), rest, letters, form, parsed);
    } else {
      parsed.operands.push(arg);
    }
  }
  return parsed;
}

function parseLetters(
  cluster: string,
  rest: string[],
  letters: string,
  form: string,
  into: HelperArguments,
): void {
  for (let i = 0; i < cluster.length; i++) {
    const letter = cluster.charAt(i);
    if (WITH_VALUE.has(letter)) {
      const value = cluster.slice(i + 1) || rest.shift();
      if (value === undefined) throw usage(`-${letter}: needs a value (usage: ${form})`);
      if (letter === 'o') into.options.push(value);
      if (letter === 'N') into.namespace = namespaceFile(value);
      return;
    }
    if (!letters.includes(letter)) throw usage(`-${letter}: no such option (usage: ${form})`);
    into.flags.add(letter);
  }
}

/** mount(8): a file that stands for the namespace, or the pid of a process in it. */
function namespaceFile(value: string): string {
  return /^\d+$/.test(value) ? `/proc/${value}/ns/mnt` : value;
}

/** What the kernel shows in mountinfo and mount(8) hands back with a remount: settled when the mount was made. */
const KERNEL_OPTIONS = new Set([
  'fd',
  'rootmode',
  'user_id',
  'group_id',
  'default_permissions',
  'max_read',
  'blksize',
]);
/** Of libmount and of programs that read its tables. */
const FOREIGN_OPTIONS = new Set([
  'helper',
  'uhelper',
  'fsname',
  'subtype',
  'seclabel',
  'context',
  'rootcontext',
]);

/** Drops options that are for others; the rest is polyd's to judge. */
export function ownOptions(list: string): string {
  const isOurs = (option: string): boolean => {
    const key = option.split('=')[0] ?? '';
    return !KERNEL_OPTIONS.has(key) && !FOREIGN_OPTIONS.has(key);
  };
  return list.split(',').filter(isOurs).join(',');
}

/** Runs a helper; its failures are one line on stderr and mount(8)'s exit status. */
export async function runHelper(program: string, main: (args: string[]) => Promise<void>): Promise<void> {
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    report(program, error);
    // Without an errno it is nobody's fault but ours; 3 is no exit status of mount(8).
    if (errorCode(error) === undefined) process.exitCode = exitCodes.bug;
    else if (process.exitCode === exitCodes.notRunning) process.exitCode = exitCodes.mount;
  }
}
