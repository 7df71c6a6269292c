/** `poly start` */
import type { CommandModule } from 'yargs';

export const startCommand: CommandModule<object, { foreground: boolean }> = {
  command: 'start',
  describe: 'start the daemon',
  builder: (yargs) =>
    yargs
      .usage(
        'poly start [--foreground]\n\nThrough systemd where root has poly.service installed. `poly mount` does it, too.',
      )
      .option('foreground', {
        alias: 'f',
        type: 'boolean',
        default: false,
        describe: 'stay in the terminal',
      }),
  handler: async ({ foreground }) => {
    const { ANSWER_MS, connectIfRunning } = await import('./client.ts');
    const { startDaemon } = await import('./daemon.ts');
    const { print } = await import('./output.ts');
    const running = await connectIfRunning();
    if (!running && foreground) {
      await stay();
      return;
    }
    const polyd = running ?? (await startDaemon());
    const { pid, runDir } = await polyd.request('status', {}, ANSWER_MS).finally(() => {
      polyd.end();
    });
    print(`${running ? 'already running' : 'started'}: pid ${String(pid)}, run directory ${runDir}`);
  },
};

/** polyd as our child, so that signals and the terminal are as the user expects; its end is ours. */
async function stay(): Promise<void> {
  const { spawn } = await import('node:child_process');
  const { constants } = await import('node:os');
  const { polydScript } = await import('./daemon.ts');
  const child = spawn(process.execPath, [polydScript()], { stdio: 'inherit' });
  // The terminal signals the whole group; a signal to us alone is passed on.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      child.kill(signal);
    });
  }
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      process.exitCode = code ?? 128 + constants.signals[signal ?? 'SIGTERM'];
      resolve();
    });
  });
}
