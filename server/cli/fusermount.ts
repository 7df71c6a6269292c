/** Unmounting as an ordinary user: fusermount3(1) has the right to, for one's own mounts. */
import { spawnSync } from 'node:child_process';
import { PolyError } from '../errors.ts';

/** What fusermount3 says, as the errno umount(2) would give. */
const REASONS: [RegExp, string, string][] = [
  [/busy/i, 'EBUSY', 'is busy (files there are open, or a shell stands in it)'],
  [/not found in|not mounted|Invalid argument/i, 'EINVAL', 'not mounted'],
  [/not permitted|permission/i, 'EPERM', "another user's mount"],
];

export function fusermount(path: string, { lazy = false }: { lazy?: boolean }): void {
  const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/bin:/bin`, LC_ALL: 'C' };
  const result = spawnSync('fusermount3', ['-u', ...(lazy ? ['-z'] : []), '--', path], {
    env,
    encoding: 'utf8',
  });
  if (result.error) throw new PolyError('ENOENT', `${path}: fusermount3: ${result.error.message}`);
  if (result.status === 0) return;
  const said = result.stderr.trim().split('\n')[0] ?? '';
  const [, code, reason] = REASONS.find(([pattern]) => pattern.test(said)) ?? [undefined, 'EIO', said];
  throw new PolyError(code, `${path}: ${reason}`);
}
