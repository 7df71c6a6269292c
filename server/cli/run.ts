/**
 * `poly run`: becomes a program that reaches poly mounts by the fast path. It only sets LD_PRELOAD and POLY_ATTACH; a
 * program that cannot be accelerated runs all the same, and one line says why it goes through FUSE.
 *
 * Nothing on the way touches process.stdout or process.stderr: that would make pipes non-blocking for the program, too.
 * yargs does, so it has its hands on `poly run` only when there is an option, and so no program to run.
 */
import { accessSync, constants, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { CommandModule } from 'yargs';
import { errorCode, errorMessage } from '../errors.ts';
import type { NativeAddon } from '../native.ts';
import type { Obstacle } from './program.ts';

/** As env(1) and nohup(1) have it. */
const CANNOT_RUN = 126;
const NOT_FOUND = 127;
/** `poly run --check`: the program would go through FUSE. */
const NOT_ACCELERATED = 1;

/** The library, as scripts/build.sh makes it; POLY_PRELOAD overrides it. */
function preloadLibrary(): string {
  const built = new URL('../../../build/native/preload/libpoly-preload.so', import.meta.url);
  return process.env['POLY_PRELOAD'] ?? fileURLToPath(built);
}

/**
 * `args` of `poly run`, taken apart: our own options, and the program's words, which begin at the first word that is no
 * option, or after "--". yargs must not see those.
 */
export function splitRun(args: string[]): { own: string[]; words: string[] } {
  const isOption = (arg: string | undefined) => arg !== undefined && arg.length > 1 && arg.startsWith('-');
  let end = 1;
  while (isOption(args[end]) && args[end] !== '--') end++;
  return { own: args.slice(0, end), words: args.slice(args[end] === '--' ? end + 1 : end) };
}

/** The command for these words of a program. */
export function runCommand(words: string[]): CommandModule<object, { check: boolean }> {
  return {
    command: 'run',
    describe: 'run a program that reaches poly mounts by the fast path',
    builder: (yargs) =>
      yargs
        .usage(
          'poly run [--check] [--] PROGRAM [ARGUMENTS]\n\n' +
            'PROGRAM takes the place of this command. If it cannot be accelerated (static,\n' +
            'set-user-ID, another C library or architecture, no daemon) one line on stderr\n' +
            'says so, and it runs all the same, through FUSE.\n\n' +
            'Exit status: that of PROGRAM; 126 it cannot be run, 127 it is not found.\n' +
            'With --check: 0 it can be accelerated, 1 it cannot.',
        )
        .option('check', {
          type: 'boolean',
          default: false,
          describe: 'only say whether it can be accelerated',
        }),
    handler: ({ check }) => runProgram(words, check),
  };
}

/** Runs, or with `check` only looks at, the program that the last words of our command line name. */
export async function runProgram(words: string[], check: boolean): Promise<void> {
  const { usage } = await import('./errors.ts');
  const [word] = words;
  if (word === undefined) throw usage('run: which program? (see: poly run --help)');
  const { findProgram, obstacleOf } = await import('./program.ts');
  let program: string;
  try {
    program = findProgram(word, process.env['PATH']);
  } catch (error) {
    fail(word, error);
    return;
  }
  const { native } = await import('../native.ts');
  const addon = native();
  const library = preloadLibrary();
  const { attach, trouble } = await surroundings(addon, library);
  const obstacle = obstacleOf(program, (file) => addon.fileCapabilities(file));
  const reason = trouble ?? obstacle?.reason;
  if (check) {
    say(1, reason === undefined ? `${program}: accelerated` : `${program}: through FUSE: ${reason}`);
    process.exitCode = reason === undefined ? 0 : NOT_ACCELERATED;
    return;
  }
  if (reason !== undefined) say(2, `poly: ${program}: not accelerated: ${reason}`);
  try {
    addon.exec(words.length, trouble === undefined ? variables(library, attach, obstacle) : {});
  } catch (error) {
    fail(word, error);
  }
}

function fail(word: string, error: unknown): void {
  const isMissing = errorCode(error) === 'ENOENT';
  const why = isMissing
    ? 'not found'
    : errorCode(error) === 'EACCES'
      ? 'permission denied'
      : errorMessage(error);
  say(2, `poly: ${word}: ${why}`);
  process.exitCode = isMissing ? NOT_FOUND : CANNOT_RUN;
}

/** To a descriptor, and not to Node's stream. */
function say(fd: number, line: string): void {
  try {
    writeSync(fd, `${line.replace(/[\x00-\x1f\x7f]/g, '?')}\n`);
  } catch {
    // Nobody reads it.
  }
}

/** Where the fast path is, or why there is none for any program. */
async function surroundings(
  addon: NativeAddon,
  library: string,
): Promise<{ attach: string; trouble?: string }> {
  const { candidates, troubleWith } = await import('./attach.ts');
  let trouble = libraryTrouble(library);
  for (const dir of candidates()) {
    const why = troubleWith(addon, dir);
    if (why === undefined) return { attach: dir.attachDir, ...(trouble !== undefined && { trouble }) };
    trouble ??= why;
  }
  return { attach: '', ...(trouble !== undefined && { trouble }) };
}

function libraryTrouble(library: string): string | undefined {
  // ld.so(8): both separate the names in LD_PRELOAD, and cannot be escaped.
  if (/[ :]/.test(library)) return `${library}: a path with a blank or colon`;
  try {
    accessSync(library, constants.R_OK);
    return undefined;
  } catch (error) {
    return errorCode(error) === 'ENOENT' ? `${library} is missing` : `${library} cannot be read`;
  }
}

function variables(library: string, attach: string, obstacle: Obstacle | undefined): Record<string, string> {
  if (obstacle?.harmless === false) return {};
  const others = (process.env['LD_PRELOAD'] ?? '')
    .split(/[ :]+/)
    .filter((name) => name !== '' && name !== library);
  return { LD_PRELOAD: [library, ...others].join(':'), POLY_ATTACH: attach };
}
