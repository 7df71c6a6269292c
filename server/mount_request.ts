/**
 * What a mount request says, and what its client is told: pure functions beside server/mounts.ts.
 */
import { randomUUID } from 'node:crypto';
import { PolyError } from './errors.ts';
import { fuseName } from './keeper.ts';
import type { MountTableEntry } from './native.ts';
import { type CephSettings, flagList, type MountSettings } from './options.ts';
import type { PrepareResult } from './protocol.ts';
import type { ResolvedSpec } from './spec.ts';
import type { LibserviceRecord, MountRecord, ServiceRecord } from './state.ts';

const DEFAULT_CEPH_CONF = '/etc/ceph/ceph.conf';

/** Options of one type of libservice are not for others. */
export function checkLayer(spec: ResolvedSpec, settings: MountSettings): void {
  for (const type of ['memory', 'ceph'] as const) {
    const [key] = spec.type === type ? [] : Object.keys(settings[type]);
    if (key !== undefined)
      throw new PolyError('EINVAL', `option ${optionName(key)}: only for ${type}, not for ${spec.text}`);
  }
}

/** What a setting of a libservice is called as a mount option. */
export function optionName(setting: string): string {
  return setting === 'opTimeout' ? 'op_timeout' : setting;
}

/** Who a Ceph client acts for, and in which filesystem of which cluster: a matter of options. */
export function cephTenant(settings: CephSettings): string {
  const { user = 'admin', conf = DEFAULT_CEPH_CONF, fs = '' } = settings;
  return `ceph:${user}@${conf}:${fs}`;
}

/** `spec` with its whole identity. */
export function identified(spec: ResolvedSpec, settings: MountSettings): ResolvedSpec {
  if (spec.type !== 'ceph' || spec.source === undefined) return spec;
  const tenant = cephTenant(settings.ceph);
  return { ...spec, tenant, identity: `${tenant}:${directoryOf(spec)}` };
}

/** The directory that is asked for, where the libservice may have one above it for its root. */
function directoryOf(spec: ResolvedSpec): string {
  const root = spec.source === undefined || spec.source === '/' ? '' : spec.source;
  return spec.subdirectory === '' && root !== '' ? root : `${root}/${spec.subdirectory}`;
}

/** Path of what is asked for below the libservice's root; undefined: it is not below it, or of somebody else. */
export function pathWithin(libservice: LibserviceRecord, spec: ResolvedSpec): string | undefined {
  if (spec.identity === null) return undefined;
  if (spec.tenant === undefined) return libservice.identity === spec.identity ? spec.subdirectory : undefined;
  if (libservice.identity !== spec.tenant) return undefined;
  const root = libservice.source === '/' ? '/' : `${libservice.source ?? ''}/`;
  const path = `${directoryOf(spec)}/`;
  return path.startsWith(root) ? path.slice(root.length, -1) : undefined;
}

/** The record of a libservice that nobody has yet. */
export function newLibservice(id: number, spec: ResolvedSpec, settings: MountSettings): LibserviceRecord {
  const { type, source } = spec;
  const identity = spec.tenant ?? spec.identity;
  const record = { id, identity, type, ...(source !== undefined && { source }) };
  if (type !== 'ceph') return { ...record, ...settings.memory };
  const client = { user: 'admin', conf: DEFAULT_CEPH_CONF, uuid: randomUUID(), widen: true };
  return { ...record, ...client, ...settings.ceph };
}

/** A libservice that exists is taken as it is: EINVAL where the request wants it otherwise. */
export function checkSame(same: LibserviceRecord, spec: ResolvedSpec, settings: MountSettings): void {
  for (const [key, value] of Object.entries({ ...settings.memory, ...settings.ceph })) {
    if (same[key as keyof LibserviceRecord] === value) continue;
    throw new PolyError(
      'EINVAL',
      `option ${optionName(key)}: ${spec.text} exists already in this service with another value`,
    );
  }
}

/**
 * Seconds for which kernels believe attributes and names. Other hosts change a Ceph filesystem, and libcephfs does not
 * tell when it may be believed no longer: nobody may hide that from those who have not asked for it.
 */
export function timeouts(
  spec: ResolvedSpec,
  settings: MountSettings,
): { attrTimeout?: number; entryTimeout?: number } {
  const usual = spec.type === 'ceph' ? 0 : undefined;
  const attrTimeout = settings.attrTimeout ?? usual;
  const entryTimeout = settings.entryTimeout ?? usual;
  return {
    ...(attrTimeout !== undefined && { attrTimeout }),
    ...(entryTimeout !== undefined && { entryTimeout }),
  };
}

/** A service polls, or does not, from its start: a mount that joins it may only agree. */
export function checkPoll(service: ServiceRecord, poll: number | undefined): void {
  if (poll === undefined || poll === service.poll) return;
  const does = service.poll === undefined ? 'does not poll' : `polls on CPU ${String(service.poll)}`;
  throw new PolyError('EBUSY', `option poll=${String(poll)}: service ${String(service.id)} ${does}`);
}

export function fullMatch(
  mount: MountRecord,
  spec: ResolvedSpec,
  settings: MountSettings,
  source: string,
): PrepareResult {
  const same =
    (spec.identity === null ? mount.spec === spec.text : mount.identity === spec.identity) &&
    (spec.tenant !== undefined || mount.subdirectory === spec.subdirectory);
  if (!same) throw new PolyError('EBUSY', `${mount.path}: ${mount.spec} is mounted there`);
  return { mount: 0, outcome: 'full-match', ...answerFor({ ...mount, source }, settings) };
}

/** Whether others than who mounts are let in. */
export function allowsOther(settings: MountSettings): boolean {
  return settings.allowOther ?? process.geteuid?.() === 0;
}

/** What the client needs to mount. */
export function answerFor(
  mount: MountRecord,
  settings: MountSettings,
): Omit<PrepareResult, 'mount' | 'outcome'> {
  const { flags } = settings;
  const data = ['default_permissions', ...(allowsOther(settings) ? ['allow_other'] : [])];
  // fusermount3 takes commas and backslashes of names escaped, and does not know relatime and strictatime.
  const name = mount.source.replace(/[\\,]/g, '\\$&');
  const known = flagList(flags).filter((flag) => flag !== 'relatime' && flag !== 'strictatime');
  return {
    service: mount.service,
    instance: mount.instance,
    keeperName: fuseName(mount.service, mount.instance),
    source: mount.source,
    flags,
    data: data.join(','),
    fusermountOptions: [`fsname=${name}`, 'subtype=poly', ...data, ...known].join(','),
  };
}

export function tableEntry(mount: MountRecord): MountTableEntry {
  const { path, service, instance, readOnly, device, mountId } = mount;
  return { path, service, instance, readOnly, kernel: false, device, mountId };
}
