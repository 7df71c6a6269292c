/**
 * Real mounts for tests: the built addon, /dev/fuse and root. Whatever a test does with files below a mount it does in
 * child processes with a time limit, so that a mount nobody serves cannot hang the test.
 */
import type { ExecutionContext } from 'ava';
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { addonPath, native } from '../../server/native.ts';
import type { MountOptions, PrepareResult } from '../../server/protocol.ts';
import { Site, temporary, type Client } from './helpers.ts';

/** Why the real thing cannot be tested here, or undefined. */
export function missing(): string | undefined {
  if (process.geteuid?.() !== 0) return 'needs root';
  if (!existsSync('/dev/fuse')) return 'needs /dev/fuse';
  return existsSync(addonPath) ? undefined : `needs ${addonPath}`;
}

interface MountLine {
  mountId: number;
  device: string;
  path: string;
  type: string;
}

/** Our lines of /proc/self/mountinfo, proc(5), later mounts last. */
export function mountLines(): MountLine[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .trim()
    .split('\n')
    .map((line) => {
      const fields = line.split(' ');
      const path = (fields[4] ?? '').replace(/\\(\d{3})/g, (_, digits: string) =>
        String.fromCharCode(parseInt(digits, 8)),
      );
      const type = fields[fields.indexOf('-') + 1] ?? '';
      return { mountId: Number(fields[0]), device: fields[2] ?? '', path, type };
    });
}

function lineOf(path: string): MountLine | undefined {
  return mountLines().findLast((line) => line.path === path);
}

/** A site with real mounts below `root`, all taken away after the test whatever state they are in. */
export function realSite(t: ExecutionContext, env: NodeJS.ProcessEnv = {}): { site: Site; root: string } {
  const root = temporary(t, 'poly-mnt-');
  const site = new Site(t, env);
  t.teardown(() => {
    const ours = mountLines().filter((line) => line.path.startsWith(`${root}/`));
    for (const line of ours.reverse()) {
      abortConnection(line.device);
      try {
        execFileSync('umount', ['-l', line.path], { stdio: 'ignore', timeout: 5000 });
      } catch {
        // Unmounted meanwhile.
      }
    }
  });
  return { site, root };
}

export function abortConnection(device: string): void {
  const minor = device.split(':')[1] ?? '';
  if (!mountLines().some((line) => line.type === 'fusectl')) {
    execFileSync('mount', ['-t', 'fusectl', 'fusectl', '/sys/fs/fuse/connections']);
  }
  try {
    writeFileSync(`/sys/fs/fuse/connections/${minor}/abort`, '1');
  } catch {
    // Gone.
  }
}

/** Mounts as the CLI does: prepare, mount(2), the fd to the keeper, commit. */
export async function mountReal(
  site: Site,
  client: Client,
  path: string,
  spec: string,
  options: MountOptions = {},
): Promise<PrepareResult> {
  const addon = native();
  if (!lineOf(path)) mkdirSync(path, { recursive: true });
  const prepared = await client.request('mount.prepare', { path, spec, options });
  if (prepared.outcome === 'full-match') return prepared;
  const fuse = addon.openFuse();
  const keeper = addon.keeperConnect(site.dir.keeperSocket);
  try {
    addon.mountFuse(path, fuse, prepared.source, prepared.flags, prepared.data);
    keeper.put(prepared.keeperName, [fuse]);
  } finally {
    keeper.close();
    addon.closeFd(fuse);
  }
  const line = lineOf(path);
  if (!line) throw new Error(`${path} is not in mountinfo`);
  await client.request('mount.commit', { mount: prepared.mount, device: line.device, mountId: line.mountId });
  return prepared;
}

/** Runs a shell command; its output, or an error that says why. */
export function sh(command: string, timeoutMs = 10_000): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      'sh',
      ['-ec', command],
      { timeout: timeoutMs, killSignal: 'SIGKILL' },
      (error, stdout, stderr) => {
        if (error) reject(new Error(`${command}: ${error.killed ? 'timed out' : stderr || error.message}`));
        else resolve(stdout);
      },
    );
  });
}

export function pathIn(root: string, name: string): string {
  return join(root, name);
}
