/**
 * A control group of its own for each service, cgroups(7) version 2, below polyd's own group. Best effort: where the
 * hierarchy is not ours to write (an ordinary user, a container) services stay in polyd's group.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** polyd's own group as a directory, or null where version 2 is not mounted. */
function ownGroup(): string | null {
  // Unified, then the hybrid layout of systemd.
  const root = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((path) =>
    existsSync(join(path, 'cgroup.procs')),
  );
  if (root === undefined) return null;
  try {
    const path = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1];
    return path === undefined ? null : join(root, path);
  } catch {
    return null;
  }
}

const own = ownGroup();

/** Moves `pid` into the new group `name`. Returns the group's directory, or null where that is not possible. */
export async function joinOwnGroup(name: string, pid: number): Promise<string | null> {
  if (own === null) return null;
  const path = join(own, name);
  try {
    mkdirSync(path, { recursive: true });
    // Off the event loop: the kernel waits for an RCU grace period here.
    await writeFile(join(path, 'cgroup.procs'), String(pid));
    return path;
  } catch {
    removeGroup(path);
    return null;
  }
}

/** Removes the empty groups of services that ended while no polyd was there; rmdir leaves those in use (EBUSY). */
export function sweepGroups(): void {
  if (own === null) return;
  for (const name of readdirSync(own)) {
    if (/^poly-\d+-service-\d+$/.test(name)) removeGroup(join(own, name));
  }
}

export function removeGroup(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // EBUSY, ENOENT: nothing that would hurt anybody.
  }
}
