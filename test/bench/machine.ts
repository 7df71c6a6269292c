/** What the figures were measured on. */
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';

export interface Machine {
  cpu: string;
  cores: number;
  memoryGiB: number;
  kernel: string;
  distribution: string;
  /** One-minute load average when the run began: figures taken on a busy machine are not comparable. */
  load: number;
}

export function machine(): Machine {
  const name = /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    distribution: name ?? 'unknown',
    load: Number(readFileSync('/proc/loadavg', 'utf8').split(' ')[0]),
  };
}
