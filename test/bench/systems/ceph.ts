/**
 * Ways to one Ceph cluster, each with a client per tenant: Polytropon's fast path and FUSE (two ways to the same mounts),
 * ceph-fuse with the kernel's page cache and without, and bare libcephfs in the process that asks. All write back, and all
 * clients have the same room for file data.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Cluster } from '../../ceph/cluster.ts';
import type { PolyDaemon } from './poly.ts';
import { MountedProcess, output, unmount } from './process.ts';
import type { FastPath } from './system.ts';

/** Bytes of file data that a client caches. */
export const CLIENT_CACHE = 32 << 20;

export interface CephWay {
  readonly name: string;
  /** What data comes from: the kernel's page cache, or the client's; a comparison is between equals. */
  readonly pages: boolean;
  readonly fast?: FastPath;
  /**
   * A directory for the tenant's files that only this way's client uses (both of ours have one client); undefined: nowhere,
   * the peer program is told of the cluster and has one, too.
   */
  place(tenant: string): string | undefined;
}

/** All mounts, of all tenants. */
export class CephMounts {
  readonly ways: CephWay[];
  readonly #cluster: Cluster;
  readonly #daemon: PolyDaemon;
  readonly #scratch: string;
  readonly #tenants: readonly string[];
  readonly #processes: MountedProcess[] = [];

  constructor(cluster: Cluster, daemon: PolyDaemon, scratch: string, tenants: readonly string[]) {
    this.#cluster = cluster;
    this.#daemon = daemon;
    this.#scratch = scratch;
    this.#tenants = tenants;
    const at =
      (kind: string) =>
      (tenant: string): string =>
        join(this.#directory(kind, tenant), kind);
    this.ways = [
      { name: 'poly fast', pages: false, fast: daemon.fast, place: at('poly') },
      { name: 'poly FUSE', pages: true, place: at('poly') },
      { name: 'ceph-fuse', pages: true, place: at('cached') },
      { name: 'ceph-fuse, no page cache', pages: false, place: at('uncached') },
      { name: 'libcephfs', pages: false, place: () => undefined },
    ];
  }

  #directory(kind: string, tenant: string): string {
    return join(this.#scratch, kind, tenant);
  }

  async start(): Promise<void> {
    for (const tenant of this.#tenants) {
      for (const kind of ['poly', 'cached', 'uncached'])
        mkdirSync(this.#directory(kind, tenant), { recursive: true });
      const options = `user=${tenant},conf=${this.#cluster.conf},write=back,cache=${String(CLIENT_CACHE)}`;
      await this.#daemon.command('mount', `ceph:/${tenant}`, this.#directory('poly', tenant), '-o', options);
      await this.#startPeer(tenant, 'cached', 'false');
      await this.#startPeer(tenant, 'uncached', 'true');
      for (const way of this.ways) {
        const path = way.place(tenant);
        if (path !== undefined) mkdirSync(path, { recursive: true });
      }
    }
  }

  async #startPeer(tenant: string, kind: string, disablePageCache: string): Promise<void> {
    const process = new MountedProcess();
    this.#processes.push(process);
    const dir = this.#directory(kind, tenant);
    const args = ['-f', '--id', tenant, '-c', this.#cluster.conf, '-r', `/${tenant}`];
    const settings = [
      `--client_oc_size=${String(CLIENT_CACHE)}`,
      `--fuse_disable_pagecache=${disablePageCache}`,
    ];
    await process.start('ceph-fuse', [...args, ...settings, dir], dir);
  }

  /** Of what this process measures with the peer program. */
  bareArgs(tenant: string): string[] {
    return [this.#cluster.conf, tenant, `/${tenant}`, '--cache', String(CLIENT_CACHE)];
  }

  async stop(): Promise<void> {
    for (const process of this.#processes) await process.stop();
    for (const tenant of this.#tenants) {
      const dir = this.#directory('poly', tenant);
      await this.#daemon.command('umount', dir).catch(() => unmount(dir));
    }
  }
}

export async function cephVersion(): Promise<string> {
  return (await output('ceph-fuse', ['--version'])).trim();
}
