/** Running programs for the benchmark: with a time limit, their output in the error, and mounts that never outlive it. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const MOUNT_LIMIT_MS = 15_000;
const END_LIMIT_MS = 5_000;

interface RunOptions {
  limitMs?: number;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
}

/** Standard output of a program that must succeed within its time limit (one minute). */
export async function output(command: string, args: string[], options: RunOptions = {}): Promise<string> {
  const { stdout } = await promisify(execFile)(command, args, {
    timeout: options.limitMs ?? 60_000,
    killSignal: 'SIGKILL',
    maxBuffer: 16 << 20,
    env: options.env ?? process.env,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  return stdout;
}

/** "major:minor" of what is mounted on `dir`, without touching the mount: its server may be gone. */
export function mountedDevice(dir: string): string | undefined {
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n').reverse()) {
    const fields = line.split(' ');
    if (fields[4] === dir) return fields[2];
  }
  return undefined;
}

/** Ends whatever is mounted on `dir`. A server that does not answer is cut off first, or unmounting would wait for it. */
export async function unmount(dir: string): Promise<void> {
  const device = mountedDevice(dir);
  if (device === undefined) return;
  const command = process.getuid?.() === 0 ? ['umount', dir] : ['fusermount3', '-u', dir];
  try {
    await output(command[0] ?? 'umount', command.slice(1), { limitMs: END_LIMIT_MS });
  } catch {
    try {
      writeFileSync(`/sys/fs/fuse/connections/${device.split(':')[1] ?? ''}/abort`, '1');
    } catch {
      // Already aborted, or not root; the lazy unmount below is what is left.
    }
    await output('umount', ['-l', dir], { limitMs: END_LIMIT_MS }).catch(() => undefined);
  }
}

/** A server in the foreground that mounts itself on a directory. */
export class MountedProcess {
  #child: ChildProcess | undefined;
  #dir = '';
  #errors = '';

  async start(command: string, args: string[], dir: string, options: RunOptions = {}): Promise<void> {
    this.#dir = dir;
    this.#errors = '';
    const child = spawn(command, args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: options.env ?? process.env,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    this.#child = child;
    child.on('error', (error) => (this.#errors += error.message));
    child.stderr.on('data', (text: Buffer) => (this.#errors += text.toString()));
    const deadline = Date.now() + MOUNT_LIMIT_MS;
    while (mountedDevice(dir) === undefined) {
      const ended = child.exitCode !== null || child.signalCode !== null || child.pid === undefined;
      if (ended || Date.now() > deadline) {
        await this.stop();
        throw new Error(`${command}: no mount on ${dir}: ${this.#errors.trim() || 'no message'}`);
      }
      await sleep(10);
    }
  }

  async stop(): Promise<void> {
    await unmount(this.#dir);
    const child = this.#child;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, 'exit');
    if (await Promise.race([exit, sleep(500)])) return; // most servers end with their mount
    child.kill('SIGTERM');
    if (await Promise.race([exit, sleep(END_LIMIT_MS)])) return;
    child.kill('SIGKILL');
    await exit;
  }
}
