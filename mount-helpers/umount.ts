/** umount.poly: called by umount(8) for mounts of type fuse.poly. */
import { usage } from '../server/cli/errors.ts';
import { unmount } from '../server/cli/umount_flow.ts';
import { parseArguments, runHelper } from './helper.ts';

const FORM = 'umount.poly DIR [-flnrv] [-N NAMESPACE] [-t TYPE]';

async function main(args: string[]): Promise<void> {
  const { operands, flags, namespace } = parseArguments(args, 'flnrv', FORM);
  const [directory] = operands;
  if (directory === undefined || operands.length > 1) throw usage(`usage: ${FORM}`);
  const path = await unmount({
    program: 'umount.poly',
    directory,
    lazy: flags.has('l'),
    force: flags.has('f'),
    orReadOnly: flags.has('r'),
    namespace,
  });
  if (flags.has('v')) process.stdout.write(`umount.poly: ${path} unmounted\n`);
}

await runHelper('umount.poly', main);
