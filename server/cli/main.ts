/**
 * The `poly` command. The command files hold names and options only; what they do is imported when they run, so that
 * `poly --help` and `poly ls` start fast.
 */
import { readFileSync } from 'node:fs';
import type { Argv } from 'yargs';
import { completions } from './completion.ts';
import { configCommand } from './config.ts';
import { demoCommand } from './demo.ts';
import { report, usage } from './errors.ts';
import { lsCommand } from './ls.ts';
import { mountCommand } from './mount.ts';
import { ignoreClosedPipes } from './output.ts';
import { releaseCommand } from './release.ts';
import { runCommand, runProgram, splitRun } from './run.ts';
import { startCommand } from './start.ts';
import { statCommand } from './stat.ts';
import { statusCommand } from './status.ts';
import { stopCommand } from './stop.ts';
import { umountCommand } from './umount.ts';

const WIDTH = 80;

const EPILOGUE = `Exit status: 0 ok, 1 usage or permission, 2 system error, 3 daemon not running,
32 mount failure. See also: man poly, man poly.toml, man mount.poly`;

function version(): string {
  const file = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return String((JSON.parse(file) as { version?: unknown }).version);
}

async function parser(args: string[], words: string[] = []): Promise<Argv> {
  // Not at the top: it makes pipes on stdout non-blocking (server/cli/run.ts).
  const { default: yargs } = await import('yargs');
  const poly = yargs(args)
    .scriptName('poly')
    .detectLocale(false)
    .usage('poly COMMAND [OPTIONS]: file systems served by user-level processes')
    .command(mountCommand)
    .command(umountCommand)
    .command(releaseCommand)
    .command(lsCommand)
    .command(statCommand)
    .command(runCommand(words))
    .command(statusCommand)
    .command(startCommand)
    .command(stopCommand)
    .command(configCommand)
    .command(demoCommand)
    .completion('completion', 'print a completion script (bash or zsh)', completions)
    .demandCommand(1, 'which command? (see: poly --help)')
    .strict()
    .version(version())
    .help()
    .alias({ help: 'h', version: 'V' })
    .wrap(WIDTH)
    .epilogue(EPILOGUE)
    .fail((message: string, error: Error | undefined) => {
      throw error && error.name !== 'YError'
        ? error
        : usage(complaint(message || (error?.message ?? ''), args));
    });
  return poly;
}

/** yargs' words in the form `what: why`. */
function complaint(message: string, args: string[]): string {
  const line = message.trim().replace(/\s*\n\s*/g, ' ');
  const command = args.find((arg) => !arg.startsWith('-')) ?? '';
  const help = `see: poly ${command && `${command} `}--help`;
  const unknown = /^Unknown (?:command|argument)s?: ([^,]*)/.exec(line)?.[1];
  if (unknown !== undefined && unknown === command) return `${unknown}: no such command (see: poly --help)`;
  if (unknown !== undefined) return `${asTyped(unknown, args)}: not known here (${help})`;
  const choice = /Argument: \S+, Given: "(.*?)", Choices: (.*)$/.exec(line);
  if (choice) return `${choice[1] ?? ''}: must be one of ${choice[2] ?? ''} (${help})`;
  const option = /^Not enough arguments following: (.*)$/.exec(line)?.[1];
  if (option !== undefined) return `${asTyped(option, args)}: needs a value (${help})`;
  if (line.startsWith('Not enough non-option arguments'))
    return `${command}: an argument is missing (${help})`;
  return command === '' ? line : `${command}: ${line.charAt(0).toLowerCase()}${line.slice(1)}`;
}

/** "-o" or "--pool" as it was written, for yargs' "o" and "pool". */
function asTyped(name: string, args: string[]): string {
  return args.find((arg) => arg.replace(/^-+/, '').split('=')[0] === name) ?? name;
}

/** Runs the command of this process; the exit code is left in process.exitCode. */
export async function run(args: string[] = process.argv.slice(2)): Promise<void> {
  if (args[0] === 'run') {
    await runOther(args);
    return;
  }
  ignoreClosedPipes();
  // yargs prints the script of the shell that $SHELL names; `poly completion zsh` asks for another.
  if (args[0] === 'completion' && args[1] !== undefined) process.env['SHELL'] = args[1];
  try {
    await (await parser(args)).parseAsync();
  } catch (error) {
    report('poly', error);
  }
}

/** `poly run`, whose words after the program's name are not ours to read. */
async function runOther(args: string[]): Promise<void> {
  const { own, words } = splitRun(args);
  try {
    if (own.length > 1) await (await parser(own, words)).parseAsync();
    else await runProgram(words, false);
  } catch (error) {
    report('poly', error);
  }
}
