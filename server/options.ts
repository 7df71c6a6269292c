/**
 * Mount options: "ro,size=64m,share" to settings, with one clear error for what is unknown or wrong.
 * polyd is the judge; clients use the same functions to say no before anything is started.
 */
import { totalmem } from 'node:os';
import { PolyError } from './errors.ts';
import type { HugePolicy, LibserviceSpec, MountFlags } from './native.ts';
import type { MountOptions } from './protocol.ts';

/** Of a memory libservice. */
export type MemorySettings = Pick<LibserviceSpec, 'size' | 'inodes' | 'mode' | 'uid' | 'gid' | 'huge'>;

export const hugePolicies = ['never', 'always', 'within_size', 'advise'] as const satisfies HugePolicy[];

/** Of a Ceph libservice: one client of one user of one cluster. */
export type CephSettings = Pick<
  LibserviceSpec,
  'user' | 'conf' | 'keyring' | 'fs' | 'write' | 'cache' | 'dirty' | 'opTimeout'
>;

export interface MountSettings {
  flags: MountFlags;
  /** Undefined: the default of who mounts (on for root, off for others). */
  allowOther?: boolean;
  attrTimeout?: number;
  entryTimeout?: number;
  /** Share libservices of the service whose mount the path lies below. */
  share: boolean;
  pool?: string;
  /** The CPU on which the service polls for fast-path calls while programs are attached. */
  poll?: number;
  memory: MemorySettings;
  ceph: CephSettings;
}

type Apply = (settings: MountSettings, value: string, key: string) => void;

/** Options without a value. "norelatime" is "strictatime" since Linux 2.6.30, mount(8). */
const flagOptions: Record<string, (settings: MountSettings) => void> = {
  ro: (s) => (s.flags.ro = true),
  rw: (s) => (s.flags.ro = false),
  suid: (s) => (s.flags.nosuid = false),
  nosuid: (s) => (s.flags.nosuid = true),
  dev: (s) => (s.flags.nodev = false),
  nodev: (s) => (s.flags.nodev = true),
  exec: (s) => (s.flags.noexec = false),
  noexec: (s) => (s.flags.noexec = true),
  atime: (s) => (s.flags.noatime = false),
  noatime: (s) => (s.flags.noatime = true),
  diratime: (s) => (s.flags.nodiratime = false),
  nodiratime: (s) => (s.flags.nodiratime = true),
  relatime: (s) => {
    s.flags.relatime = true;
    s.flags.strictatime = false;
  },
  strictatime: (s) => {
    s.flags.strictatime = true;
    s.flags.relatime = false;
  },
  sync: (s) => (s.flags.sync = true),
  async: (s) => (s.flags.sync = false),
  dirsync: (s) => (s.flags.dirsync = true),
  allow_other: (s) => (s.allowOther = true),
  share: (s) => (s.share = true),
};

const valueOptions: Record<string, Apply> = {
  attr_timeout: (s, value, key) => (s.attrTimeout = seconds(key, value)),
  entry_timeout: (s, value, key) => (s.entryTimeout = seconds(key, value)),
  pool: (s, value, key) => (s.pool = poolName(key, value)),
  poll: (s, value, key) => (s.poll = integer(key, value, 10, 1023)),
  size: (s, value, key) => (s.memory.size = bytes(key, value)),
  inodes: (s, value, key) => (s.memory.inodes = count(key, value)),
  mode: (s, value, key) => (s.memory.mode = integer(key, value, 8, 0o7777)),
  uid: (s, value, key) => (s.memory.uid = integer(key, value, 10, 0xfffffffe)),
  gid: (s, value, key) => (s.memory.gid = integer(key, value, 10, 0xfffffffe)),
  huge: (s, value, key) => (s.memory.huge = hugePolicy(key, value)),
  user: (s, value, key) => (s.ceph.user = cephName(key, value)),
  conf: (s, value, key) => (s.ceph.conf = absolute(key, value)),
  keyring: (s, value, key) => (s.ceph.keyring = absolute(key, value)),
  fs: (s, value, key) => (s.ceph.fs = cephName(key, value)),
  write: (s, value, key) => (s.ceph.write = writing(key, value)),
  cache: (s, value, key) => (s.ceph.cache = atLeast(key, value, CEPH_LEAST_CACHE)),
  dirty: (s, value, key) => (s.ceph.dirty = atLeast(key, value, 2 ** 20)),
  op_timeout: (s, value, key) => (s.ceph.opTimeout = seconds(key, value)),
};

/** libcephfs with less takes milliseconds for a 4 KiB read. */
const CEPH_LEAST_CACHE = 32 * 2 ** 20;

/**
 * Options of fstab(5) and mount(8) that are for other programs: accepted and dropped. "user" and its kin are mount(8)'s
 * business; the nosuid,nodev,noexec they imply arrive spelled out.
 */
const dropped = new Set(
  'defaults auto noauto nofail _netdev user nouser users nousers owner noowner group nogroup silent loud nomand'.split(
    ' ',
  ),
);

/** With a value, "user" is whose Ceph client it is. */
function isDropped(key: string, value: string | true): boolean {
  if (key === 'user' && value !== true) return false;
  return dropped.has(key) || key.startsWith('x-') || key.startsWith('X-') || key === 'comment';
}

function bad(key: string, value: string, need: string): PolyError {
  return new PolyError('EINVAL', `option ${key}=${value}: ${need}`);
}

function integer(key: string, value: string, base: 8 | 10, max: number): number {
  const digits = base === 8 ? /^[0-7]{1,22}$/ : /^\d{1,20}$/;
  const number = digits.test(value) ? parseInt(value, base) : NaN;
  if (!(number <= max))
    throw bad(key, value, base === 8 ? 'not an octal mode up to 7777' : 'not a number in range');
  return number;
}

function seconds(key: string, value: string): number {
  const number = /^\d{1,10}(\.\d{1,9})?$/.test(value) ? Number(value) : NaN;
  if (!(number <= 86_400)) throw bad(key, value, 'not seconds between 0 and 86400');
  return number;
}

const units: Record<string, number> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** tmpfs(5): a number of bytes with suffix k, m, g or a percentage of RAM. */
function bytes(key: string, value: string): number {
  const match = /^(\d{1,16})([kmgt%]?)$/i.exec(value);
  const suffix = (match?.[2] ?? '').toLowerCase();
  const count = Number(match?.[1] ?? NaN);
  const size = suffix === '%' ? Math.floor((totalmem() / 100) * count) : count * (units[suffix] ?? NaN);
  if (!Number.isSafeInteger(size)) throw bad(key, value, 'not a size (a number with k, m, g, t or %)');
  return size;
}

/** tmpfs(5) takes k, m and g after nr_inodes as well. */
function count(key: string, value: string): number {
  if (value.endsWith('%')) throw bad(key, value, 'not a number');
  return bytes(key, value);
}

function hugePolicy(key: string, value: string): HugePolicy {
  const policy = hugePolicies.find((name) => name === value);
  if (policy === undefined) throw bad(key, value, `must be ${hugePolicies.join(', ')}`);
  return policy;
}

/** "32m" for 33554432. */
function inMegabytes(size: number): string {
  return `${String(size / 2 ** 20)}m`;
}

function atLeast(key: string, value: string, least: number): number {
  const size = bytes(key, value);
  if (size < least) throw bad(key, value, `must be ${inMegabytes(least)} at least`);
  return size;
}

function absolute(key: string, value: string): string {
  if (!value.startsWith('/') || value.includes('\0')) throw bad(key, value, 'not an absolute path');
  return value;
}

/** Of a user (without "client.") or a filesystem. */
function cephName(key: string, value: string): string {
  if (!/^[A-Za-z0-9_.-]{1,128}$/.test(value) || value.startsWith('client.'))
    throw bad(key, value, 'not a name (letters, digits, "_", "." and "-", without "client." in front)');
  return value;
}

function writing(key: string, value: string): 'through' | 'back' {
  if (value !== 'through' && value !== 'back') throw bad(key, value, 'not "through" or "back"');
  return value;
}

function poolName(key: string, value: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(value)) {
    throw bad(key, value, 'not a pool name (letters, digits, "_", "." and "-", at most 64)');
  }
  return value;
}

/** True for options that keep their value from mount to unmount; remount may change the others. */
export function isFixed(key: string): boolean {
  return Object.hasOwn(valueOptions, key);
}

/** Settings of `options`; EINVAL names the first option that is unknown or has a bad value. */
export function parseSettings(options: MountOptions): MountSettings {
  const settings: MountSettings = { flags: {}, share: false, memory: {}, ceph: {} };
  for (const [key, value] of Object.entries(options)) {
    if (isDropped(key, value)) continue;
    const flag = Object.hasOwn(flagOptions, key) ? flagOptions[key] : undefined;
    const apply = Object.hasOwn(valueOptions, key) ? valueOptions[key] : undefined;
    if (flag) {
      if (value !== true) throw new PolyError('EINVAL', `option ${key}: takes no value`);
      flag(settings);
    } else if (apply) {
      if (value === true || value === '') throw new PolyError('EINVAL', `option ${key}: needs a value`);
      apply(settings, value, key);
    } else {
      throw new PolyError('EINVAL', `unknown mount option: ${key}`);
    }
  }
  return settings;
}

/** "a,b=c" as mount(8) passes it; the later of two opposites wins, as it comes later in order. */
export function parseOptionString(text: string): MountOptions {
  const options = new Map<string, string | true>();
  for (const part of text.split(',')) {
    if (part === '') continue;
    const equals = part.indexOf('=');
    const key = equals < 0 ? part : part.slice(0, equals);
    if (key === '') throw new PolyError('EINVAL', `option ${part}: no name`);
    const value = equals < 0 ? true : part.slice(equals + 1);
    if (isDropped(key, value)) continue;
    options.delete(key);
    options.set(key, value);
  }
  return Object.fromEntries(options);
}

/** Options of `over` on top of `base` (a configured filesystem's), as if written after them. */
export function mergeOptions(base: MountOptions, over: MountOptions): MountOptions {
  const merged = new Map(Object.entries(base));
  for (const [key, value] of Object.entries(over)) {
    merged.delete(key);
    merged.set(key, value);
  }
  return Object.fromEntries(merged);
}

const flagNames = [
  'nosuid',
  'nodev',
  'noexec',
  'noatime',
  'nodiratime',
  'relatime',
  'strictatime',
  'sync',
  'dirsync',
] as const;

/** The flags that are on, as mount(8) option names; "ro" or "rw" first. */
export function flagList(flags: MountFlags): string[] {
  return [flags.ro ? 'ro' : 'rw', ...flagNames.filter((name) => flags[name] === true)];
}
