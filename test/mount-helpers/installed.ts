/** The helpers under the names by which scripts/install.sh links them. */
import { chmodSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { root } from '../server/cli_harness.ts';

export const launcher = join(root, 'mount-helpers/mount.poly');

/** A directory with them, which any user may search, for as long as the test file runs. */
export function installedHelpers(): string {
  const directory = mkdtempSync(join(tmpdir(), 'poly-helpers-'));
  chmodSync(directory, 0o755);
  for (const name of ['mount.poly', 'umount.poly', 'mount.fuse.poly', 'umount.fuse.poly'])
    symlinkSync(launcher, join(directory, name));
  test.after.always(() => {
    rmSync(directory, { recursive: true });
  });
  return directory;
}
