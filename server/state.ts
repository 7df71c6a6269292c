/**
 * polyd's durable state: which services there are and which mounts they serve. One JSON file in the run directory,
 * replaced as a whole by rename(2), so a reader sees the old or the new state and never a torn one. It need not survive
 * the machine (run directories are on tmpfs, and no mount survives a reboot), hence no fsync.
 */
import { copyFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { errorCode, errorMessage, PolyError } from './errors.ts';
import type { LibserviceSpec } from './native.ts';
import { hugePolicies } from './options.ts';

const id = z.int().min(1);

const librecord = z.object({
  id,
  identity: z.string().nullable(),
  type: z.enum(['memory', 'local', 'ceph']),
  source: z.string().optional(),
  size: z.number().optional(),
  inodes: z.number().optional(),
  mode: z.number().optional(),
  uid: z.number().optional(),
  gid: z.number().optional(),
  huge: z.enum(hugePolicies).optional(),
  uuid: z.string().optional(),
  widen: z.boolean().optional(),
  user: z.string().optional(),
  conf: z.string().optional(),
  keyring: z.string().optional(),
  fs: z.string().optional(),
  write: z.enum(['through', 'back']).optional(),
  cache: z.number().optional(),
  dirty: z.number().optional(),
  opTimeout: z.number().optional(),
});

const service = z.object({
  id,
  pool: z.string().nullable(),
  /** The CPU it polls on. */
  poll: z.int().min(0).optional(),
  /** The process, 0 when there is none; `startTime` from /proc/<pid>/stat guards against a reused pid. */
  pid: z.int().min(0),
  startTime: z.string(),
  startedAt: z.string(),
  restarts: z.int().min(0),
  nextInstance: id,
  nextLibservice: id,
  libservices: z.array(librecord),
  cgroup: z.string().nullable(),
});

const mount = z.object({
  path: z.string(),
  spec: z.string(),
  identity: z.string().nullable(),
  subdirectory: z.string(),
  source: z.string(),
  service: id,
  instance: id,
  libservice: id,
  outcome: z.enum(['shared', 'new-service']),
  options: z.record(z.string(), z.union([z.string(), z.literal(true)])),
  readOnly: z.boolean(),
  attrTimeout: z.number().optional(),
  entryTimeout: z.number().optional(),
  device: z.string(),
  mountId: z.int(),
  since: z.string(),
});

const stateSchema = z.object({
  version: z.literal(1),
  nextService: id,
  nextMount: id,
  services: z.array(service),
  mounts: z.array(mount),
});

export type LibserviceRecord = LibserviceSpec & { identity: string | null };
export type ServiceRecord = Omit<z.infer<typeof service>, 'libservices'> & {
  libservices: LibserviceRecord[];
};
export type MountRecord = z.infer<typeof mount>;
export type State = Omit<z.infer<typeof stateSchema>, 'services'> & { services: ServiceRecord[] };

export function emptyState(): State {
  return { version: 1, nextService: 1, nextMount: 1, services: [], mounts: [] };
}

function parse(text: string): State {
  const result = stateSchema.safeParse(JSON.parse(text));
  if (result.success) return result.data as State;
  const issue = result.error.issues[0];
  throw new PolyError('EINVAL', `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'invalid'}`);
}

/** The state in `file`, or an empty one when there is none. A damaged file is copied aside and reported: EUCLEAN. */
export function loadState(file: string): State {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return emptyState();
    throw new PolyError(errorCode(error) ?? 'EIO', `${file}: ${errorMessage(error)}`);
  }
  try {
    return parse(text);
  } catch (error) {
    const copy = `${file}.damaged-${String(Date.now())}`;
    copyFileSync(file, copy);
    throw new PolyError('EUCLEAN', `${file}: damaged (${errorMessage(error)}); kept as ${copy}`);
  }
}

export function saveState(file: string, state: State): void {
  const temporary = `${file}.new`;
  writeFileSync(temporary, `${JSON.stringify(state, null, 1)}\n`, { mode: 0o600 });
  renameSync(temporary, file);
}
