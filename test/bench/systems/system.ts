/**
 * A system under measurement: something that can serve a directory. Systems of one family are compared with each other;
 * `local` systems all serve the same backing directory, each works in a subdirectory of its own. `fast` systems are those
 * that the fast path is compared with.
 */
export type Family = 'memory' | 'local' | 'fast';

/** What a service has answered by the fast path, and how much of that it left to the kernel. */
export interface CallCount {
  calls: number;
  declined: number;
}

export interface FastPath {
  /** What a program that is to use it has in its environment. */
  readonly environment: NodeJS.ProcessEnv;
  /** Of these processes, for as long as they are attached. */
  count(pids: readonly number[]): Promise<CallCount>;
}

export interface System {
  readonly name: string;
  readonly family: Family;
  /** Ours is what the others are compared with. */
  readonly ours: boolean;
  /** The directory it is mounted on, by default called like the system. Systems that share an instance share it. */
  readonly mountName?: string;
  /** Where its programs do not go through the kernel. */
  readonly fast?: FastPath;
  /** Undefined when it can run, else one line that says why not. Called once, before anything is started. */
  unavailable(): Promise<string | undefined>;
  /** Resolves when `dir` is mounted and answers. `backing` is the directory a `local` system serves. */
  start(dir: string, backing: string): Promise<void>;
  /** Unmounts and ends every process of the system; never throws, never hangs. */
  stop(): Promise<void>;
  /** Version of what was measured, for the report. */
  version(): Promise<string>;
}
