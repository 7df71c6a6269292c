/** `poly stop` */
import type { CommandModule } from 'yargs';
import type { Polyd } from './client.ts';

interface Arguments {
  'keep-mounts': boolean;
  lazy: boolean;
}

const END_MS = 15_000;

export const stopCommand: CommandModule<object, Arguments> = {
  command: 'stop',
  describe: 'unmount everything and stop the daemon',
  builder: (yargs) =>
    yargs.usage('poly stop [--keep-mounts | --lazy]').options({
      'keep-mounts': {
        type: 'boolean',
        default: false,
        describe: 'stop the daemon only: mounts go on, the next daemon finds them',
      },
      lazy: { alias: 'l', type: 'boolean', default: false, describe: 'detach mounts that are busy' },
    }),
  handler: async (argv) => {
    const { ANSWER_MS, connectIfRunning } = await import('./client.ts');
    const { LEAVE_MS } = await import('../native.ts');
    const { usage } = await import('./errors.ts');
    const { print } = await import('./output.ts');
    if (argv.lazy && argv['keep-mounts']) throw usage('stop: --lazy and --keep-mounts exclude each other');
    const polyd = await connectIfRunning();
    if (!polyd) {
      print('not running');
      return;
    }
    try {
      const { pid } = await polyd.request('status', {}, ANSWER_MS);
      if (!argv['keep-mounts']) await unmountAll(polyd, argv.lazy);
      const params = { mounts: argv['keep-mounts'] ? 'keep' : 'unmount' } as const;
      await polyd.request('stop', params, ANSWER_MS + LEAVE_MS);
      await ended(pid);
    } finally {
      polyd.end();
    }
    print(argv['keep-mounts'] ? 'stopped; mounts go on' : 'stopped');
  },
};

/** Deepest first, as mounts nest. */
async function unmountAll(polyd: Polyd, lazy: boolean): Promise<void> {
  const { ANSWER_MS } = await import('./client.ts');
  const { mountFailure } = await import('./errors.ts');
  const { findMount, unmountWith } = await import('./umount_flow.ts');
  const mounts = await polyd.request('mount.list', {}, ANSWER_MS);
  const depth = (path: string): number => path.split('/').length;
  for (const { path } of mounts.sort((a, b) => depth(b.path) - depth(a.path))) {
    try {
      // What is detached but in use, or mounted in another namespace, can only be dropped.
      if (!lazy || findMount(path)) await unmountWith({ program: 'poly', directory: path, lazy }, polyd);
      if (lazy) await polyd.request('mount.forget', { path }, ANSWER_MS);
    } catch (error) {
      throw mountFailure(path, error);
    }
  }
}

async function ended(pid: number): Promise<void> {
  const { setTimeout: sleep } = await import('node:timers/promises');
  const { CliError, exitCodes } = await import('./errors.ts');
  const deadline = Date.now() + END_MS;
  while (Date.now() < deadline) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await sleep(20);
  }
  throw new CliError(
    exitCodes.system,
    `daemon: pid ${String(pid)} has not ended after ${String(END_MS / 1000)} s`,
  );
}
