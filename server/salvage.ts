/**
 * Services that run but are not in polyd's state: the state was lost or damaged, or polyd was killed between starting a
 * service and writing that down. What they serve and the mount table together tell what the state was; a service that
 * serves no mount is ended. Afterwards the keeper holds nothing that belongs to nobody.
 */
import { readdirSync } from 'node:fs';
import { errorMessage } from './errors.ts';
import { serviceScope } from './keeper.ts';
import type { InstanceSpec, LibserviceSpec, MountTableEntry, NativeMountTable } from './native.ts';
import { cephTenant } from './mount_request.ts';
import { startTimeOf } from './process.ts';
import type { ServiceContents, ServiceMethods } from './protocol.ts';
import { connectRpc, socketFd, type RpcPeer } from './rpc.ts';
import type { LibserviceRecord, MountRecord, ServiceRecord } from './state.ts';
import type { Context } from './supervisor.ts';

const TIMEOUT_MS = 2000;

/** Ids of service sockets in the run directory. */
function socketIds(context: Context): number[] {
  const names = readdirSync(context.dir.path).map((name) => /^service-(\d{1,9})\.sock$/.exec(name)?.[1]);
  return names.filter((text) => text !== undefined).map(Number);
}

function libserviceRecord(spec: LibserviceSpec): LibserviceRecord {
  if (spec.type === 'ceph') return { ...spec, identity: cephTenant(spec) };
  return { ...spec, identity: spec.source === undefined ? null : `local:${spec.source}` };
}

function mountRecord(
  entry: MountTableEntry,
  instance: InstanceSpec,
  libservice: LibserviceRecord,
): MountRecord {
  const below = [libservice.source, instance.subdirectory].filter(
    (part) => part !== undefined && part !== '',
  );
  const directory = below.join('/').replace(/^\/+/, '/');
  const ceph = libservice.type === 'ceph';
  const text = ceph ? `ceph:${directory}` : (libservice.identity ?? libservice.type);
  return {
    path: entry.path,
    spec: text,
    identity: ceph ? `${cephTenant(libservice)}:${directory}` : libservice.identity,
    subdirectory: instance.subdirectory ?? '',
    source: text,
    service: entry.service,
    instance: entry.instance,
    libservice: instance.libservice,
    outcome: 'new-service',
    options: {
      ...(entry.readOnly && { ro: true as const }),
      ...(instance.allowOther && { allow_other: true as const }),
    },
    readOnly: entry.readOnly,
    ...(instance.attrTimeout !== undefined && { attrTimeout: instance.attrTimeout }),
    ...(instance.entryTimeout !== undefined && { entryTimeout: instance.entryTimeout }),
    device: entry.device,
    mountId: entry.mountId,
    since: new Date().toISOString(),
  };
}

function serviceRecord(id: number, pid: number, contents: ServiceContents): ServiceRecord {
  const highest = (items: { id: number }[]) => Math.max(0, ...items.map((item) => item.id));
  return {
    id,
    pool: null,
    pid,
    startTime: startTimeOf(pid),
    startedAt: new Date().toISOString(),
    restarts: 0,
    // Ids that were used and are gone are not known any more; a gap keeps new ones apart from them.
    nextInstance: highest(contents.instances) + 1000,
    nextLibservice: highest(contents.libservices) + 1000,
    libservices: contents.libservices.map(libserviceRecord),
    cgroup: null,
  };
}

/** Adds one running service to the state, or ends it when no mount is known for it. */
async function salvageService(context: Context, id: number, entries: MountTableEntry[]): Promise<void> {
  const { state, log, addon, dir } = context;
  let peer: RpcPeer<ServiceMethods>;
  try {
    peer = await connectRpc<ServiceMethods>(dir.serviceSocket(id));
  } catch {
    // A dead one's socket file.
    return;
  }
  try {
    const contents = await peer.request('instances', {}, TIMEOUT_MS);
    const record = serviceRecord(id, addon.peerCredentials(socketFd(peer.socket)).pid, contents);
    const mounts = entries.flatMap((entry) => {
      const instance = contents.instances.find((spec) => spec.id === entry.instance);
      const libservice = record.libservices.find((spec) => spec.id === instance?.libservice);
      return instance && libservice ? [mountRecord(entry, instance, libservice)] : [];
    });
    if (mounts.length === 0) {
      log.warn({ service: id }, 'an unknown service without mounts: ended');
      await peer.request('stop', {}, TIMEOUT_MS);
      return;
    }
    log.warn({ service: id, mounts: mounts.map((mount) => mount.path) }, 'an unknown service: taken up');
    state.services.push(record);
    state.mounts.push(...mounts);
  } catch (error) {
    log.error({ service: id }, `unknown service: ${errorMessage(error)}`);
  } finally {
    peer.end();
  }
}

/** Brings the state in line with what runs. Before adoption, and before the mount table follows the state. */
export async function salvage(context: Context, table: NativeMountTable): Promise<void> {
  const { state, keeper, log } = context;
  const known = new Set(state.services.map((record) => record.id));
  const entries = table.entries();
  const unknown = socketIds(context).filter((id) => !known.has(id));
  await Promise.all(
    unknown.map((id) =>
      salvageService(
        context,
        id,
        entries.filter((entry) => entry.service === id),
      ),
    ),
  );
  const ids = new Set(state.services.map((record) => record.id));
  state.mounts = state.mounts.filter((mount) => ids.has(mount.service));
  const seen = [...ids, ...unknown, ...entries.map((entry) => entry.service)];
  state.nextService = Math.max(state.nextService, ...seen.map((id) => id + 1));
  const names = keeper.call((connection) => connection.list('service-')).map((item) => item.name);
  const owners = new Set(names.map((name) => Number(/^service-(\d+)\//.exec(name)?.[1])));
  for (const id of owners) {
    if (ids.has(id) || Number.isNaN(id)) continue;
    log.warn({ service: id }, 'the keeper held fds of a service that is no more: closed');
    keeper.call((connection) => {
      connection.clear(serviceScope(id));
    });
  }
}
