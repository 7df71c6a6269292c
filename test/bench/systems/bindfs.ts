/** bindfs over the directory that our `local` serves. Debian 12's is built on libfuse 2: no cloned fds, 128 KiB writes. */
import { MountedProcess, output } from './process.ts';
import type { System } from './system.ts';

const OPTIONS = 'default_permissions,entry_timeout=1,attr_timeout=1,big_writes,max_write=131072';

export class Bindfs implements System {
  readonly name = 'bindfs';
  readonly family = 'local';
  readonly ours = false;
  readonly #process = new MountedProcess();

  async unavailable(): Promise<string | undefined> {
    return this.version().then(
      () => undefined,
      () => 'not installed (package bindfs)',
    );
  }

  start(dir: string, backing: string): Promise<void> {
    return this.#process.start('bindfs', ['-f', '--multithreaded', '-o', OPTIONS, backing, dir], dir);
  }

  stop(): Promise<void> {
    return this.#process.stop();
  }

  async version(): Promise<string> {
    return (await output('bindfs', ['--version'])).trim();
  }
}
