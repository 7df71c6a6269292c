/**
 * What to mount: "local:/srv/data", "ceph:/", "memory", "memory:name", or a configured "name" or "name/sub".
 */
import type { Config } from './config.ts';
import { PolyError } from './errors.ts';
import type { LibserviceType } from './native.ts';
import type { MountOptions } from './protocol.ts';

export interface ResolvedSpec {
  type: LibserviceType;
  /** As given. */
  text: string;
  /** local: the absolute directory; ceph: the one in the Ceph filesystem. */
  source?: string;
  /**
   * Which libservice it is: two mounts of one service with the same identity use the same libservice. Null: nobody
   * else's (unnamed memory). Of ceph, which directory of whom it is (mount_request.ts).
   */
  identity: string | null;
  /** ceph: who one client acts for, and in which filesystem, whatever directory of it. */
  tenant?: string;
  /** Path below the libservice's root, "" for the root. */
  subdirectory: string;
  /** The configured filesystem's options, under those of the mount request. */
  options: MountOptions;
  pool?: string;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

function invalid(text: string, reason: string): PolyError {
  return new PolyError('EINVAL', `${text}: ${reason}`);
}

/** Drops doubled and trailing slashes; ".." is refused, as its meaning depends on symbolic links. */
function directory(text: string, path: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) throw invalid(text, '".." in the path (give the resolved path)');
  if (path.includes('\0')) throw invalid(text, 'NUL byte in the path');
  return parts.join('/');
}

function parseDirect(text: string, type: string, rest: string): ResolvedSpec {
  if (type === 'memory') {
    if (!NAME.test(rest)) throw invalid(text, 'a memory name is 1 to 64 letters, digits, "_", "." or "-"');
    return { type, text, identity: text, subdirectory: '', options: {} };
  }
  if (type === 'local' || type === 'ceph') {
    if (!rest.startsWith('/')) throw invalid(text, `${type} needs an absolute directory`);
    const source = `/${directory(text, rest)}`;
    return { type, text, source, identity: `${type}:${source}`, subdirectory: '', options: {} };
  }
  throw invalid(text, `unknown filesystem type "${type}" (available: memory, local, ceph)`);
}

function parseNamed(text: string, config: Config): ResolvedSpec {
  const slash = text.indexOf('/');
  const name = slash < 0 ? text : text.slice(0, slash);
  const filesystem = config.filesystems.get(name);
  if (!filesystem) {
    const known = [...config.filesystems.keys()].slice(0, 10).join(', ');
    const hint = known === '' ? 'nothing is configured' : `configured: ${known}`;
    throw new PolyError(
      'ENOENT',
      `no filesystem named "${name}" (${hint}; else local:/DIR, ceph:/DIR, memory or memory:NAME)`,
    );
  }
  const { type, source, options, pool } = filesystem;
  const root = source === undefined ? undefined : `/${directory(text, source)}`;
  if (type !== 'memory' && root === undefined) throw invalid(text, `filesystem "${name}" has no source`);
  return {
    type,
    text,
    ...(root !== undefined && { source: root }),
    identity: root !== undefined ? `${type}:${root}` : `config:${name}`,
    subdirectory: slash < 0 ? '' : directory(text, text.slice(slash + 1)),
    options,
    ...(pool !== undefined && { pool }),
  };
}

/** Resolves `text`; `loadConfig` is called only for a name. EINVAL or ENOENT with one clear line. */
export function parseSpec(text: string, loadConfig: () => Config): ResolvedSpec {
  if (text === 'memory') return { type: 'memory', text, identity: null, subdirectory: '', options: {} };
  const colon = text.indexOf(':');
  const slash = text.indexOf('/');
  if (colon >= 0 && (slash < 0 || colon < slash))
    return parseDirect(text, text.slice(0, colon), text.slice(colon + 1));
  if (text.startsWith('/')) throw invalid(text, `say local:${text} to mount a directory`);
  return parseNamed(text, loadConfig());
}
