/**
 * The mount table of this polyd: taken up from the keeper, or made; and brought in line with the state.
 */
import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { errorMessage } from './errors.ts';
import { type Keeper, TABLE_NAME } from './keeper.ts';
import type { Logger } from './log.ts';
import { tableEntry } from './mount_request.ts';
import type { MountTableEntry, NativeAddon, NativeMountTable } from './native.ts';
import type { State } from './state.ts';

export const TABLE_CAPACITY = 4096;

/** The kept table (its writer repairs what a killed one left), or a new one where there is none. */
export function openTable(addon: NativeAddon, keeper: Keeper, log: Logger): NativeMountTable {
  const kept = keeper
    .call((connection) => connection.get(TABLE_NAME))
    .find((item) => item.name === TABLE_NAME);
  const [fd, ...others] = kept?.fds ?? [];
  for (const other of others) addon.closeFd(other);
  if (fd !== undefined) {
    try {
      return addon.mountTableAttach(fd, true);
    } catch (error) {
      addon.closeFd(fd);
      log.error(`mount table unusable, making a new one: ${errorMessage(error)}`);
    }
  }
  const table = addon.mountTableCreate(TABLE_CAPACITY);
  keepTable(keeper, table);
  return table;
}

export function keepTable(keeper: Keeper, table: NativeMountTable): void {
  keeper.call((connection) => {
    connection.put(TABLE_NAME, [table.fd]);
  });
}

/** Writes the list of mount points that programs look at before they ask for the table (preload/mount_points.hpp). */
export function publishMountPoints(file: string, table: NativeMountTable): void {
  const paths = table.entries().flatMap((entry) => (entry.kernel ? [] : [`${entry.path}\0`]));
  const text = paths.sort().join('');
  if (existsSync(file) && readFileSync(file, 'utf8') === text) return;
  writeFileSync(`${file}.new`, text);
  chmodSync(`${file}.new`, 0o644); // Whatever the umask was.
  renameSync(`${file}.new`, file);
}

/** A kernel entry: of what others have mounted, so of no service. */
function isForeign(entry: MountTableEntry): boolean {
  return entry.kernel && entry.service === 0;
}

/** Enters a mount. Between mount(2) and now it was a foreign one to followMounts(), and may have an entry as such. */
export function enterMount(table: NativeMountTable, entry: MountTableEntry): void {
  if (table.entries().some((other) => other.path === entry.path && isForeign(other))) table.update(entry);
  else table.insert(entry);
}

/**
 * The state is the truth: entries it does not have go, those it has are there. Kernel entries are mountinfo's:
 * followMounts().
 */
export function syncTable(table: NativeMountTable, state: State): void {
  const wanted = new Map(state.mounts.map((mount) => [mount.path, tableEntry(mount)]));
  for (const entry of table.entries()) {
    if (wanted.has(entry.path) || isForeign(entry)) continue;
    table.remove(entry.path);
  }
  const present = new Set(table.entries().map((entry) => entry.path));
  for (const entry of wanted.values()) {
    if (present.has(entry.path)) table.update(entry);
    else table.insert(entry);
  }
}
