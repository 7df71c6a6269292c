/**
 * polyd's log: one JSON object per line, to the journal where systemd started us, else to polyd.log.
 */
import { pino, type Logger } from 'pino';
import type { RunDir } from './rundir.ts';

export type { Logger };

export function openLog(dir: RunDir): Logger {
  // systemd sets JOURNAL_STREAM where it reads our stdout, systemd.exec(5). Synchronous: the last line before an end
  // matters most, and there are few.
  const journal = process.env['JOURNAL_STREAM'] !== undefined && process.env['NOTIFY_SOCKET'] !== undefined;
  const destination = pino.destination({ dest: journal ? 1 : dir.logFile, sync: true, mode: 0o600 });
  return pino({ level: process.env['POLY_LOG_LEVEL'] ?? 'info', base: { pid: process.pid } }, destination);
}
