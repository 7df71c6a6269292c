/**
 * Processes by /proc, proc(5). A pid alone names nobody for long: pid and start time together do.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** The fields of /proc/<pid>/stat after the command name (which may contain anything), from field 3 (state) on. */
function statFields(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${String(pid)}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}

/** Start time in clock ticks since boot (field 22), "" when there is no such process. */
export function startTimeOf(pid: number): string {
  return statFields(pid)?.[19] ?? '';
}

function threadCount(pid: number): number {
  try {
    return readdirSync(`/proc/${String(pid)}/task`).length;
  } catch {
    return 0;
  }
}

/**
 * True while the process of that start time can still act. A zombie cannot, unless its other threads still run: a
 * killed leader may be a zombie before they are gone.
 */
export function isAlive(pid: number, startTime: string): boolean {
  if (pid <= 0) return false;
  const fields = statFields(pid);
  if (fields?.[19] !== startTime) return false;
  return fields[0] !== 'Z' || threadCount(pid) > 1;
}

/** Waits until the process is gone; false when it is still there after timeoutMs. */
export async function waitGone(pid: number, startTime: string, timeoutMs: number): Promise<boolean> {
  for (let waited = 0; isAlive(pid, startTime); waited += 5) {
    if (waited >= timeoutMs) return false;
    await sleep(5);
  }
  return true;
}

export function sendSignal(pid: number, signal: NodeJS.Signals): void {
  // kill(2): 0 and below would mean process groups.
  if (pid <= 0) return;
  try {
    process.kill(pid, signal);
  } catch {
    // ESRCH: it went by itself.
  }
}

/** The process's own name for itself (PR_SET_NAME, by default the program's), "" when there is none of that pid. */
export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${String(pid)}/comm`, 'utf8').replace(/\n$/, '');
  } catch {
    return '';
  }
}

/** Resident bytes and threads from /proc/<pid>/status. */
export function usageOf(pid: number): { rss?: number; threads?: number } {
  try {
    const text = readFileSync(`/proc/${String(pid)}/status`, 'utf8');
    const rss = /^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1];
    const threads = /^Threads:\s+(\d+)$/m.exec(text)?.[1];
    return {
      ...(rss !== undefined && { rss: Number(rss) * 1024 }),
      ...(threads !== undefined && { threads: Number(threads) }),
    };
  } catch {
    return {};
  }
}

/** The CPUs that this process, and what it starts, may run on: Cpus_allowed_list, proc(5), "0-3,8". */
export function allowedCpus(): number[] {
  const list = /^Cpus_allowed_list:\s+(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '';
  return list.split(',').flatMap((range) => {
    const [first = NaN, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}
