/**
 * Processes by /proc, proc(5). A pid alone names nobody for long: pid and start time together do.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** The fields of /proc/<pid>/stat, or of a thread's, from field 2 (the name, which may contain anything) on. */
function statFields(process: string): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${process}/stat`, 'utf8');
    const nameEnd = text.lastIndexOf(')');
    return [text.slice(text.indexOf('(') + 1, nameEnd), ...text.slice(nameEnd + 2).split(' ')];
  } catch {
    return undefined;
  }
}

/** Start time in clock ticks since boot (field 22), "" when there is no such process. */
export function startTimeOf(pid: number): string {
  return statFields(String(pid))?.[20] ?? '';
}

/**
 * Threads of a killed process that its successor need not wait for: notifications wait in the kernel, where no signal
 * reaches them, for locks that go when the successor answers (native/fuse/notifier.hpp).
 */
const NOTIFIER = 'poly-notifier';

function hasOtherThreads(pid: number): boolean {
  let threads: string[];
  try {
    threads = readdirSync(`/proc/${String(pid)}/task`);
  } catch {
    return false;
  }
  return threads.some((thread) => {
    if (thread === String(pid)) return false;
    const [name, state] = statFields(`${String(pid)}/task/${thread}`) ?? [];
    return state !== undefined && state !== 'Z' && !(name === NOTIFIER && state === 'D');
  });
}

/**
 * True while the process of that start time can still act. A zombie cannot, unless its other threads still run: a
 * killed leader may be a zombie before they are gone.
 */
export function isAlive(pid: number, startTime: string): boolean {
  if (pid <= 0) return false;
  const fields = statFields(String(pid));
  if (fields?.[20] !== startTime) return false;
  return fields[1] !== 'Z' || hasOtherThreads(pid);
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
