/** Shell scripts as child processes, with a time limit that also holds when a mount does not answer. */
import { spawn } from 'node:child_process';

export interface Outcome {
  /** The exit status; null when ended by a signal. */
  status: number | null;
  timedOut: boolean;
  /** What came on standard output and standard error, in the order of arrival; only the end of very much. */
  output: string;
}

export interface ShellOptions {
  directory: string;
  seconds: number;
  env?: NodeJS.ProcessEnv;
  /** The first words of the command line: what runs bash. */
  under?: string[];
  /** Called when killing was not enough: processes in a request to a dead mount end only with its connection. */
  release: () => void;
}

const KEPT = 1 << 22;
const GRACE_MS = 5000;

/** Runs `script` with bash -euo pipefail in a process group of its own. */
export function shell(
  script: string,
  { directory, seconds, env, under, release }: ShellOptions,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const [program, ...words] = [...(under ?? []), 'bash', '-euo', 'pipefail', '-c', script];
    const child = spawn(program, words, {
      cwd: directory,
      // Messages are compared and searched.
      env: { ...process.env, LC_ALL: 'C', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const outcome: Outcome = { status: null, timedOut: false, output: '' };
    const add = (text: string): void => {
      outcome.output = (outcome.output + text).slice(-KEPT);
    };
    child.stdout.setEncoding('utf8').on('data', add);
    child.stderr.setEncoding('utf8').on('data', add);
    let unstick: NodeJS.Timeout | undefined;
    const limit = setTimeout(() => {
      outcome.timedOut = true;
      killGroup(child.pid);
      unstick = setTimeout(release, GRACE_MS);
    }, seconds * 1000);
    child.once('error', reject);
    child.once('close', (status) => {
      clearTimeout(limit);
      clearTimeout(unstick);
      killGroup(child.pid);
      resolve({ ...outcome, status });
    });
  });
}

function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // All of it has ended.
  }
}

/** The end of what a script said, for messages. */
export function tail(output: string, lines = 40): string {
  return output.trimEnd().split('\n').slice(-lines).join('\n');
}
