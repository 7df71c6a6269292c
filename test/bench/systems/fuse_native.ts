/** npm fuse-native with an in-memory operations object. It is installed into a directory of its own, outside the project. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sourceDir } from '../paths.ts';
import { MountedProcess, output } from './process.ts';
import type { System } from './system.ts';

const INSTALL_LIMIT_MS = 180_000;

export class FuseNative implements System {
  readonly name = 'fuse-native';
  readonly family = 'memory';
  readonly ours = false;
  readonly #home: string;
  readonly #process = new MountedProcess();

  /** `home` is where it is installed; the caller removes it. */
  constructor(home: string) {
    this.#home = home;
  }

  async unavailable(): Promise<string | undefined> {
    mkdirSync(this.#home, { recursive: true });
    writeFileSync(join(this.#home, 'package.json'), '{ "private": true }');
    try {
      const options = { cwd: this.#home, limitMs: INSTALL_LIMIT_MS };
      await output('npm', ['install', '--no-audit', '--no-fund', 'fuse-native'], options);
      await output(process.execPath, ['-e', 'require("fuse-native")'], { cwd: this.#home });
      return undefined;
    } catch (error) {
      return `does not install: ${String(error).split('\n')[0] ?? ''}`;
    }
  }

  start(dir: string): Promise<void> {
    const script = join(sourceDir, 'peers/fuse-native-memfs.mjs');
    return this.#process.start(process.execPath, [script, dir], dir, { cwd: this.#home });
  }

  stop(): Promise<void> {
    return this.#process.stop();
  }

  async version(): Promise<string> {
    const manifest = await readFile(join(this.#home, 'node_modules/fuse-native/package.json'), 'utf8');
    const { version } = JSON.parse(manifest) as { version: string };
    return `fuse-native ${version} (libfuse 2)`;
  }
}
