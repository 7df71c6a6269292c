import { writeFileSync } from 'node:fs';

/** One FUSE request carries 1 MiB; the kernel's default readahead (128 KiB) would split a sequential read into eight. */
const READAHEAD_KB = 1024;

/**
 * Raises the readahead of a mount, given by its device ("0:44"), through its backing_dev_info in sysfs (INIT can only lower it).
 * For root only, and best effort: without it reads are slower, not wrong.
 */
export function raiseReadahead(device: string): boolean {
  try {
    writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, String(READAHEAD_KB));
    return true;
  } catch {
    return false;
  }
}
