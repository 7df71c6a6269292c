/**
 * Named filesystems and pools from TOML files.
 *
 * Read in this order: /etc/poly/*.toml, then $XDG_CONFIG_HOME/poly/*.toml (or ~/.config/poly); POLY_CONFIG_DIR replaces
 * both. A name may be defined once in all files together. Every complaint is one line: `file:line: key 'a.b.c': reason`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join, normalize } from 'node:path';
import { parse, TomlError } from 'smol-toml';
import { z } from 'zod';
import { type KeyPath, lineFinder } from './config_lines.ts';
import { errorMessage, PolyError } from './errors.ts';
import type { LibserviceType } from './native.ts';
import { hugePolicies, parseOptionString, parseSettings } from './options.ts';
import type { MountOptions } from './protocol.ts';

/** A filesystem that can be mounted by its name. */
export interface FilesystemConfig {
  name: string;
  type: LibserviceType;
  /** local: the absolute directory; ceph: the one in the Ceph filesystem. */
  source?: string;
  /** The layer's parameters (MEMORY_ONLY, CEPH_ONLY) and the mount options, as `-o` would give them. */
  options: MountOptions;
  pool?: string;
  /** Where `poly mount NAME` and poly@NAME.service mount it. */
  path?: string;
  /** The file that defines it and the line where it begins. */
  file: string;
  line: number;
}

export interface PoolConfig {
  name: string;
  description?: string;
  file: string;
  line: number;
}

export interface Config {
  filesystems: Map<string, FilesystemConfig>;
  pools: Map<string, PoolConfig>;
  /** The files read, in order. */
  files: string[];
}

/** A fault in a configuration file; the message is the whole line to show. */
export class ConfigError extends PolyError {
  readonly file: string;
  readonly line: number;

  constructor(file: string, line: number, reason: string) {
    super('EUSAGE', `${file}:${String(line)}: ${reason}`);
    this.name = 'ConfigError';
    this.file = file;
    this.line = line;
  }
}

const AVAILABLE = ['memory', 'local', 'ceph'] as const;
/** Layers that are planned: a clearer answer than "unknown" for who has read the documentation. */
const PLANNED = ['union', 'cache', 'block', 'typescript'];

const TYPES = new Set<string>([...AVAILABLE, ...PLANNED]);

const name = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/, 'a name is 1 to 64 letters, digits, "_", "." or "-"');

/** "memory" alone would be both a name and a type. */
const filesystemName = name.refine((text) => !TYPES.has(text), 'is the name of a filesystem type');

const layerType = z.string().superRefine((type, context) => {
  if ((AVAILABLE as readonly string[]).includes(type)) return;
  const message = PLANNED.includes(type)
    ? `layer '${type}' is not available yet (available: ${AVAILABLE.join(', ')})`
    : `unknown filesystem type '${type}' (available: ${AVAILABLE.join(', ')})`;
  context.addIssue({ code: 'custom', message });
});

const amount = (pattern: RegExp, hint: string) =>
  z.union([z.int().nonnegative(), z.string().regex(pattern, hint)], { error: hint }).transform(String);

const absolutePath = z
  .string()
  .refine((path) => isAbsolute(path), 'must be an absolute path')
  .transform((path) => normalize(path).replace(/(?<=.)\/+$/, ''));

const SIZE = /^\d+([kKmMgGtT]|%)?$/;
const SIZE_HINT = 'must be bytes, with k, m, g, t or % after the number if wished';
const OCTAL = 'must be octal permissions such as "0755"';

const layerFields = {
  type: layerType,
  source: absolutePath.optional(),
  size: amount(SIZE, SIZE_HINT).optional(),
  inodes: amount(/^\d+[kKmMgG]?$/, 'must be a number, with k, m or g after it if wished').optional(),
  mode: z
    .union([z.int().min(0).max(0o7777), z.string().regex(/^[0-7]{1,5}$/, OCTAL)], { error: OCTAL })
    .transform((mode) => (typeof mode === 'number' ? mode.toString(8) : mode))
    .optional(),
  uid: amount(/^\d+$/, 'must be a numeric user id').optional(),
  gid: amount(/^\d+$/, 'must be a numeric group id').optional(),
  huge: z.enum(hugePolicies).optional(),
  user: z.string().optional(),
  conf: absolutePath.optional(),
  keyring: absolutePath.optional(),
  fs: z.string().optional(),
  write: z.enum(['through', 'back'], { error: 'must be "through" or "back"' }).optional(),
  cache: amount(SIZE, SIZE_HINT).optional(),
  dirty: amount(SIZE, SIZE_HINT).optional(),
  op_timeout: z.union([z.number().nonnegative(), z.string()]).transform(String).optional(),
};
const MEMORY_ONLY = ['size', 'inodes', 'mode', 'uid', 'gid', 'huge'] as const;
const CEPH_ONLY = ['user', 'conf', 'keyring', 'fs', 'write', 'cache', 'dirty', 'op_timeout'] as const;

const layer = z.strictObject(layerFields).superRefine((value, context) => {
  checkLayer(value, (key, message) => {
    context.addIssue({ code: 'custom', path: [key], message });
  });
});

type Layer = { [key in keyof z.infer<typeof layer>]?: string | undefined };

function checkLayer(value: Layer, complain: (key: string, message: string) => void): void {
  const { type } = value;
  if (type === undefined) return;
  const others = [...(type === 'memory' ? [] : MEMORY_ONLY), ...(type === 'ceph' ? [] : CEPH_ONLY)];
  for (const key of others) if (value[key] !== undefined) complain(key, `is not for type '${type}'`);
  if (type === 'memory' && value.source !== undefined) complain('source', "is not for type 'memory'");
  if (type !== 'memory' && value.source === undefined)
    complain('source', `missing: type '${type}' needs the directory it shows`);
  if (type === 'ceph') checkParameters(value, complain);
}

/** What the parameters of a layer say as mount options. */
function checkParameters(value: Layer, complain: (key: string, message: string) => void): void {
  for (const key of CEPH_ONLY) {
    const parameter = value[key];
    if (parameter === undefined) continue;
    try {
      parseSettings({ [key]: parameter });
    } catch (error) {
      complain(key, errorMessage(error));
    }
  }
}

const optionValue = z.union([z.string(), z.number(), z.boolean()], {
  error: 'must be a string, number or boolean',
});

/** `options = "ro,noatime"` as after -o, or a table; `noatime = false` in a table means the option is not there. */
const mountOptions = z
  .union([z.string(), z.record(z.string(), optionValue)], {
    error: 'must be a string as after -o, or a table',
  })
  .transform((value, context) => {
    try {
      if (typeof value === 'string') return checkedOptions(parseOptionString(value));
      const pairs = Object.entries(value).filter(([, setting]) => setting !== false);
      return checkedOptions(
        Object.fromEntries(pairs.map(([key, it]) => [key, it === true ? it : String(it)])),
      );
    } catch (error) {
      context.addIssue({ code: 'custom', message: errorMessage(error) });
      return z.NEVER;
    }
  });

function checkedOptions(options: MountOptions): MountOptions {
  parseSettings(options);
  return options;
}

const filesystem = z
  .strictObject({
    ...layerFields,
    type: layerType.optional(),
    stack: z.array(layer).min(1, 'needs a layer').optional(),
    options: mountOptions.optional(),
    pool: name.optional(),
    path: absolutePath.optional(),
  })
  .superRefine((value, context) => {
    const complain = (key: string, message: string): void => {
      context.addIssue({ code: 'custom', path: [key], message });
    };
    if (value.stack === undefined) {
      if (value.type === undefined) complain('type', `missing (available: ${AVAILABLE.join(', ')})`);
      checkLayer(value, complain);
      return;
    }
    for (const key of Object.keys(layerFields) as (keyof typeof layerFields)[]) {
      if (value[key] !== undefined) complain(key, "belongs into a layer, as 'stack' is given");
    }
    const second = value.stack[1];
    if (second) complain('stack', `a second layer ('${second.type}') is not available yet: one layer only`);
  });

const pool = z.strictObject({
  description: z.string().optional(),
  limits: z.never({ error: 'is reserved: pool limits are not available yet' }).optional(),
});

const document = z.strictObject({
  filesystem: z.record(filesystemName, filesystem).optional(),
  pool: z.record(name, pool).optional(),
});

/** The directories searched, in order. */
export function configDirectories(env: NodeJS.ProcessEnv = process.env): string[] {
  const only = env['POLY_CONFIG_DIR'];
  if (only) return [only];
  return ['/etc/poly', join(env['XDG_CONFIG_HOME'] ?? join(env['HOME'] ?? homedir(), '.config'), 'poly')];
}

/** The *.toml files of the directories, sorted within each; a directory that is not there has none. */
export function configFiles(directories: string[] = configDirectories()): string[] {
  return directories.flatMap((directory) => {
    try {
      const names = readdirSync(directory).filter((file) => file.endsWith('.toml') && !file.startsWith('.'));
      return names.sort().map((file) => join(directory, file));
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      // Another user's directory that we may not search is as good as none.
      if (code === 'ENOENT' || code === 'EACCES' || code === 'ENOTDIR') return [];
      throw error;
    }
  });
}

/** Reads all files into one configuration; throws ConfigError at the first fault. */
export function loadConfig(files: string[] = configFiles()): Config {
  const config: Config = { filesystems: new Map(), pools: new Map(), files };
  for (const file of files) readConfigFile(file, config);
  return config;
}

function readConfigFile(file: string, config: Config): void {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError(
      file,
      1,
      `cannot be read: ${(error as NodeJS.ErrnoException).code ?? String(error)}`,
    );
  }
  const { value, lineOf } = parseDocument(file, text);
  for (const [key, entry] of Object.entries(value.filesystem ?? {})) {
    const line = lineOf(['filesystem', key]);
    rejectDuplicate(config.filesystems.get(key), 'filesystem', key, file, line);
    config.filesystems.set(key, toFilesystem(key, entry, file, line));
  }
  for (const [key, entry] of Object.entries(value.pool ?? {})) {
    const line = lineOf(['pool', key]);
    rejectDuplicate(config.pools.get(key), 'pool', key, file, line);
    const { description } = entry;
    config.pools.set(key, { name: key, file, line, ...(description === undefined ? {} : { description }) });
  }
}

function parseDocument(file: string, text: string) {
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const reason = error.message.split('\n')[0]?.replace(/^Invalid TOML document: /, '') ?? 'syntax';
    throw new ConfigError(file, error.line, `not TOML: ${reason}`);
  }
  const lineOf = lineFinder(text);
  const result = document.safeParse(raw, { reportInput: true });
  if (result.success) return { value: result.data, lineOf };
  const { path, reason } = explain(result.error.issues[0]);
  throw new ConfigError(file, lineOf(path), `key '${path.join('.')}': ${reason}`);
}

/** The key at fault and the reason in words a person who writes TOML uses. */
function explain(issue: z.core.$ZodIssue | undefined): { path: KeyPath; reason: string } {
  const path = (issue?.path ?? []).filter((step) => typeof step !== 'symbol');
  if (!issue) return { path, reason: 'is not valid' };
  if (issue.code === 'unrecognized_keys')
    return { path: [...path, issue.keys[0] ?? ''], reason: 'is not known' };
  if (issue.code === 'invalid_key') return { path, reason: issue.issues[0]?.message ?? issue.message };
  if (issue.code === 'invalid_type' && issue.expected !== 'never') {
    return { path, reason: expected(issue.expected, issue.input) };
  }
  return { path, reason: issue.message };
}

function expected(type: string, input: unknown): string {
  const words: Record<string, string> = {
    object: 'a table',
    record: 'a table',
    array: 'an array',
    int: 'a whole number',
  };
  return input === undefined ? 'missing' : `must be ${words[type] ?? `a ${type}`}`;
}

function rejectDuplicate(
  other: { file: string; line: number } | undefined,
  kind: string,
  key: string,
  file: string,
  line: number,
): void {
  if (!other) return;
  const place = `${other.file}:${String(other.line)}`;
  throw new ConfigError(file, line, `key '${kind}.${key}': is already defined in ${place}`);
}

function toFilesystem(
  key: string,
  entry: z.infer<typeof filesystem>,
  file: string,
  line: number,
): FilesystemConfig {
  const only = entry.stack?.[0] ?? entry;
  const options: MountOptions = {};
  for (const parameter of [...MEMORY_ONLY, ...CEPH_ONLY]) {
    const value = only[parameter];
    if (value !== undefined) options[parameter] = value;
  }
  Object.assign(options, entry.options);
  return {
    name: key,
    type: only.type as FilesystemConfig['type'],
    ...(only.source === undefined ? {} : { source: only.source }),
    options,
    ...(entry.pool === undefined ? {} : { pool: entry.pool }),
    ...(entry.path === undefined ? {} : { path: entry.path }),
    file,
    line,
  };
}
