/** `poly release PATH`: lets go of programs that wait for a backend which does not answer. */
import type { CommandModule } from 'yargs';
import { print, printable } from './output.ts';

export const releaseCommand: CommandModule<object, { path: string }> = {
  command: 'release <path>',
  describe: 'fail calls that a backend does not answer',
  builder: (yargs) =>
    yargs
      .usage(
        'poly release PATH\n\n' +
          'Answers the calls that wait for the backend of a mount (a Ceph cluster) with EIO, and new\n' +
          'ones at once, until the backend answers again. Nothing is unmounted.',
      )
      .positional('path', { type: 'string', demandOption: true, describe: 'mount point' }),
  handler: async ({ path }) => {
    const { ANSWER_MS, withPolyd } = await import('./client.ts');
    const { mountPoint } = await import('./umount_flow.ts');
    const target = mountPoint(path);
    const { answered } = await withPolyd((polyd) =>
      polyd.request('mount.release', { path: target }, ANSWER_MS),
    );
    print(
      `${printable(target)}: ${answered === 1 ? '1 call' : `${String(answered)} calls`} answered with EIO`,
    );
  },
};
