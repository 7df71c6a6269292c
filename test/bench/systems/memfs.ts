/** The libfuse3 low-level memory server in test/bench/peers, with a thread per request in flight or with one thread. */
import { existsSync } from 'node:fs';
import { program } from '../paths.ts';
import { MountedProcess, output } from './process.ts';
import type { Family, System } from './system.ts';

export class Memfs implements System {
  readonly family: Family;
  readonly ours = false;
  readonly name: string;
  readonly #options: string[];
  readonly #process = new MountedProcess();

  constructor(name: string, options: string[] = [], family: Family = 'memory') {
    this.name = name;
    this.family = family;
    this.#options = options;
  }

  unavailable(): Promise<string | undefined> {
    const missing = !existsSync(program('poly-bench-memfs'));
    return Promise.resolve(missing ? 'not built (package libfuse3-dev is missing)' : undefined);
  }

  async start(dir: string): Promise<void> {
    const options = this.#options.flatMap((option) => ['-o', option]);
    await this.#process.start(program('poly-bench-memfs'), ['-f', ...options, dir], dir);
  }

  stop(): Promise<void> {
    return this.#process.stop();
  }

  async version(): Promise<string> {
    return `libfuse ${(await output('pkg-config', ['--modversion', 'fuse3'])).trim()}`;
  }
}
