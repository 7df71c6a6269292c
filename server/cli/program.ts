/**
 * Programs, as `poly run` looks at them before it runs one: which file a word names, and whether the dynamic loader will
 * load a library into it (LD_PRELOAD, ld.so(8)).
 */
import {
  accessSync,
  closeSync,
  constants,
  openSync,
  readSync,
  realpathSync,
  type Stats,
  statSync,
} from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { errorCode } from '../errors.ts';

/**
 * Why a program cannot be accelerated. `harmless`: LD_PRELOAD does nothing to it and may still serve what it starts;
 * otherwise its loader would complain about the library, or fail.
 */
export interface Obstacle {
  reason: string;
  harmless: boolean;
}

/** Where execvp(3) looks when there is no PATH (glibc). */
const DEFAULT_PATH = '/bin:/usr/bin';
/** Interpreters of interpreters, execve(2). */
const MAX_SCRIPTS = 5;
/** What execve(2) looks at of a "#!" line. */
const MAX_SCRIPT_LINE = 256;

/** The file that execvp(3) would run for `word` with this PATH; an error with code ENOENT or EACCES when there is none. */
export function findProgram(word: string, path: string | undefined): string {
  if (word.includes('/')) {
    checkProgram(word);
    return word;
  }
  let denied: unknown;
  for (const directory of (path ?? DEFAULT_PATH).split(delimiter)) {
    const file = join(directory === '' ? '.' : directory, word);
    try {
      checkProgram(file);
      return file;
    } catch (error) {
      if (errorCode(error) === 'EACCES') denied ??= error;
    }
  }
  if (denied instanceof Error) throw denied;
  throw Object.assign(new Error(`${word}: not found`), { code: 'ENOENT' });
}

function checkProgram(file: string): void {
  const denied = (): Error => Object.assign(new Error(`${file}: not a program`), { code: 'EACCES' });
  if (!statSync(file).isFile()) throw denied();
  accessSync(file, constants.X_OK);
}

/** Why the library will not be loaded into `file`, or undefined. `hasCapabilities` asks for file capabilities. */
export function obstacleOf(file: string, hasCapabilities: (file: string) => boolean): Obstacle | undefined {
  let program = file;
  for (let depth = 0; depth <= MAX_SCRIPTS; depth++) {
    const head = readHead(program);
    if (head === undefined) return { reason: 'not readable, so nobody can tell', harmless: true };
    const interpreter = scriptInterpreter(head);
    if (interpreter === undefined) {
      // Neither a script nor ELF: execvp(3) gives it to the shell.
      if (!isElf(head)) return obstacleOf('/bin/sh', hasCapabilities);
      return elfObstacle(program) ?? privilegeObstacle(program, hasCapabilities);
    }
    program = interpreter;
  }
  return { reason: 'too many interpreters', harmless: true };
}

// --- Privilege -------------------------------------------------------------------------------------------------

/** The loader takes no library from the environment into a program that gains privilege: AT_SECURE, getauxval(3). */
function privilegeObstacle(file: string, hasCapabilities: (file: string) => boolean): Obstacle | undefined {
  const gained = gainedPrivilege(statSync(file), process.geteuid?.() ?? 0, process.getegid?.() ?? 0);
  if (gained !== undefined) return { reason: gained, harmless: true };
  // To root they give nothing that root has not.
  if (process.geteuid?.() !== 0 && hasCapabilities(file))
    return { reason: 'file capabilities', harmless: true };
  return undefined;
}

/** set-user-ID and set-group-ID that change anything for this caller. */
export function gainedPrivilege(
  { mode, uid, gid }: Pick<Stats, 'mode' | 'uid' | 'gid'>,
  callerUid: number,
  callerGid: number,
): string | undefined {
  if ((mode & 0o4000) !== 0 && uid !== callerUid) return 'set-user-ID';
  // Without group execute permission the bit meant mandatory locking, and execve(2) ignores it.
  if ((mode & 0o2010) === 0o2010 && gid !== callerGid) return 'set-group-ID';
  return undefined;
}

// --- Scripts ---------------------------------------------------------------------------------------------------

function readHead(file: string): Buffer | undefined {
  return readAt(file, 0, MAX_SCRIPT_LINE);
}

/** The interpreter that a "#!" line names, or undefined where there is no such line. */
export function scriptInterpreter(head: Buffer): string | undefined {
  if (head.toString('latin1', 0, 2) !== '#!') return undefined;
  const line = head.toString('utf8', 2).split('\n', 1)[0] ?? '';
  return /^[ \t]*([^ \t\0]+)/.exec(line)?.[1];
}

// --- ELF, elf(5) -----------------------------------------------------------------------------------------------

const EM_X86_64 = 62;
const PT_INTERP = 3;
const MAX_HEADERS = 4096;
const MACHINES: Record<number, string> = { 3: '32-bit x86', 40: '32-bit ARM', 183: 'ARM', 243: 'RISC-V' };

function isElf(head: Buffer): boolean {
  return head.toString('latin1', 0, 4) === '\x7fELF';
}

/** A file that cannot be read as ELF of this machine has an obstacle, too: the kernel will say what. */
function elfObstacle(file: string): Obstacle | undefined {
  const header = readAt(file, 0, 64);
  if (header === undefined || header.length < 20) return { reason: 'damaged', harmless: true };
  const isLittle = header[5] === 1;
  const machine = isLittle ? header.readUInt16LE(18) : header.readUInt16BE(18);
  if (header[4] !== 2 || machine !== EM_X86_64 || !isLittle) {
    const name = machine === EM_X86_64 ? 'x32' : (MACHINES[machine] ?? `machine ${String(machine)}`);
    return { reason: `another architecture (${name})`, harmless: false };
  }
  if (header.length < 64) return { reason: 'damaged', harmless: true };
  const loader = loaderOf(file, header);
  if (loader === null) return { reason: 'damaged', harmless: true };
  if (loader === undefined) return { reason: 'statically linked', harmless: true };
  return isGlibc(loader) ? undefined : { reason: `another C library (${loader})`, harmless: false };
}

/** PT_INTERP's path; undefined where there is none, null where the file is shorter than it says. */
function loaderOf(file: string, header: Buffer): string | undefined | null {
  const offset = Number(header.readBigUInt64LE(32));
  const size = header.readUInt16LE(54);
  const count = Math.min(header.readUInt16LE(56), MAX_HEADERS);
  if (count === 0) return undefined;
  const headers = readAt(file, offset, size * count);
  if (size < 56 || headers === undefined || headers.length < size * count) return null;
  for (let at = 0; at < headers.length; at += size) {
    if (headers.readUInt32LE(at) !== PT_INTERP) continue;
    const path = readAt(
      file,
      Number(headers.readBigUInt64LE(at + 8)),
      Math.min(Number(headers.readBigUInt64LE(at + 32)), 4096),
    );
    return path?.toString('utf8').split('\0', 1)[0] ?? null;
  }
  return undefined;
}

/** By the name that the x86-64 ABI gives glibc's loader; musl's is ld-musl-x86_64.so.1. */
function isGlibc(loader: string): boolean {
  const resolved = isAbsolute(loader) ? realName(loader) : loader;
  return /(^|\/)ld-linux-x86-64\.so\.2$/.test(loader) && !resolved.includes('musl');
}

function realName(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** Up to `length` bytes from `offset`; undefined when the file cannot be read or does not reach there. */
function readAt(file: string, offset: number, length: number): Buffer | undefined {
  let fd;
  try {
    fd = openSync(file, 'r');
    const buffer = Buffer.alloc(length);
    const count = readSync(fd, buffer, 0, length, offset);
    return buffer.subarray(0, count);
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
