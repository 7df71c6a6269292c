/**
 * /proc/self/mountinfo, proc(5): what is mounted in this process's mount namespace. Reading it asks no file system
 * anything, so it is safe where a mount's server is gone.
 */
import { readFileSync } from 'node:fs';
import type { MountFlags } from './native.ts';

export interface MountinfoLine {
  mountId: number;
  /** "major:minor" */
  device: string;
  path: string;
  type: string;
  source: string;
  /** Options of this mount (ro, nosuid, ...) and of its superblock, as comma lists. */
  mountOptions: string[];
  superOptions: string[];
}

/** Spaces, tabs, line ends and backslashes are octal there. */
function unescape(text: string): string {
  if (!text.includes('\\')) return text;
  const bytes = text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
  return bytes;
}

export function parseMountinfo(text: string): MountinfoLine[] {
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const fields = line.split(' ');
      // Optional fields end with a single "-".
      const separator = fields.indexOf('-', 6);
      return {
        mountId: Number(fields[0]),
        device: fields[2] ?? '0:0',
        path: unescape(fields[4] ?? ''),
        mountOptions: (fields[5] ?? '').split(','),
        type: fields[separator + 1] ?? '',
        source: unescape(fields[separator + 2] ?? ''),
        superOptions: (fields[separator + 3] ?? '').split(','),
      };
    });
}

export function readMountinfo(): MountinfoLine[] {
  // The path depends on the main thread's namespace: /proc/self is the main thread, whichever thread reads it.
  return parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'));
}

/** The topmost mount at exactly this path. */
export function mountAt(path: string, lines = readMountinfo()): MountinfoLine | undefined {
  return lines.findLast((line) => line.path === path);
}

export function isPoly(line: MountinfoLine | undefined): line is MountinfoLine {
  return line?.type === 'fuse.poly';
}

const FLAGS: (keyof MountFlags)[] = [
  'ro',
  'nosuid',
  'nodev',
  'noexec',
  'noatime',
  'nodiratime',
  'relatime',
  'strictatime',
];

/** The flags a mount has now: MS_REMOUNT replaces all of them, so those not mentioned must be given again. */
export function currentFlags(line: MountinfoLine): MountFlags {
  const flags: MountFlags = {};
  for (const flag of FLAGS) if (line.mountOptions.includes(flag)) flags[flag] = true;
  if (line.superOptions.includes('sync')) flags.sync = true;
  if (line.superOptions.includes('dirsync')) flags.dirsync = true;
  return flags;
}
