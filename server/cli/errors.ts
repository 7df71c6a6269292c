/**
 * How commands end: exit codes, and the one line on stderr that says what failed and why.
 */
import { errorCode, errorMessage, PolyError } from '../errors.ts';

/** mount(8)'s exit status values, and 3 for "daemon not running" as systemctl(1) has it. */
export const exitCodes = {
  ok: 0,
  usage: 1,
  system: 2,
  notRunning: 3,
  bug: 4,
  interrupt: 8,
  mount: 32,
} as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** Errors for which the one who typed the command, or lacks a right, is the one to act. */
const USAGE = new Set(['EUSAGE', 'EINVAL', 'EPERM', 'EACCES', 'ENAMETOOLONG']);

/** An error that knows the exit code it ends the command with. */
export class CliError extends PolyError {
  readonly exitCode: ExitCode;

  constructor(exitCode: ExitCode, message: string, code = 'EUSAGE') {
    super(code, message);
    this.name = 'CliError';
    this.exitCode = exitCode;
  }
}

export function usage(message: string): CliError {
  return new CliError(exitCodes.usage, message);
}

/** `error` as a failure to mount or unmount `what`: exit code 32 unless it is the user's to mend. */
export function mountFailure(what: string, error: unknown): CliError {
  if (error instanceof CliError) return error;
  const code = errorCode(error) ?? 'EIO';
  const text = describe(error);
  // Not again where the message names the path, at its beginning or inside.
  const isNamed = text.startsWith(`${what}:`) || (what.startsWith('/') && text.includes(what));
  const message = isNamed ? text : `${what}: ${text}`;
  return new CliError(USAGE.has(code) ? exitCodes.usage : exitCodes.mount, message, code);
}

/** What the errno values mean that users meet when they mount. */
const MEANINGS: Record<string, string> = {
  EACCES: 'permission denied',
  EBUSY: 'is busy (files there are open, or a shell stands in it)',
  ECONNABORTED: 'the connection was aborted',
  EINVAL: 'not a mount point, or an option the kernel does not know',
  ELOOP: 'too many symbolic links',
  ENOENT: 'no such file or directory',
  ENODEV: 'the kernel has no FUSE (modprobe fuse)',
  ENOTCONN: 'a dead mount is there (unmount it first: umount -l)',
  ENOTDIR: 'not a directory',
  ENXIO: 'the kernel has no FUSE (modprobe fuse)',
  EPERM: 'operation not permitted',
};

/** Words for an error of a system call; errors with words of their own keep them. */
export function describe(error: unknown): string {
  if (error instanceof PolyError || !(error instanceof Error)) return errorMessage(error);
  const code = errorCode(error);
  return (code === undefined ? undefined : MEANINGS[code]) ?? errorMessage(error);
}

export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof CliError) return error.exitCode;
  const code = errorCode(error);
  return code !== undefined && USAGE.has(code) ? exitCodes.usage : exitCodes.system;
}

/** Prints `program: what: why` and sets the exit code. POLY_DEBUG=1 adds the stack. */
export function report(program: string, error: unknown): void {
  process.exitCode = exitCodeOf(error);
  process.stderr.write(`${program}: ${errorMessage(error)}\n`);
  if (process.env['POLY_DEBUG'] === '1' && error instanceof Error)
    process.stderr.write(`${error.stack ?? ''}\n`);
}
