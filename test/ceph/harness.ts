/** Tests over a cluster of their file's own, and mounts of its tenants made with `poly`, as users make them. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import anyTest, { type ExecutionContext } from 'ava';
import { type Ended, runPoly } from '../server/cli_harness.ts';
import type { Client, Site } from '../server/helpers.ts';
import { missing as missingMount, realSite } from '../server/real.ts';
import { Cluster, type ClusterOptions, missingPackages, UP_MS } from './cluster.ts';

/** The long variants run where this is set. */
export const full = process.env['POLY_TEST_FULL'] === '1';

/** A cluster for the tests of a file, which are skipped with the reason where there can be none. */
export function clusterTests(options: ClusterOptions = {}): {
  test: (
    title: string,
    body: (t: ExecutionContext, cluster: Cluster) => Promise<void>,
    only?: boolean,
  ) => void;
} {
  const why = missingPackages() ?? missingMount();
  let cluster: Cluster | undefined;
  if (why === undefined) {
    anyTest.before('the cluster comes up', async (t) => {
      t.timeout(UP_MS);
      cluster = await Cluster.up(options);
    });
    anyTest.after.always('the cluster goes', async () => {
      await cluster?.down();
    });
  }
  return {
    test: (title, body, only = true) => {
      const reason = why ?? (only ? undefined : 'POLY_TEST_FULL=1');
      if (reason !== undefined) {
        anyTest.serial.skip(`${title} (${reason})`, (t) => {
          t.pass();
        });
        return;
      }
      anyTest.serial(title, async (t) => {
        if (!cluster) throw new Error('there is no cluster');
        await body(t, cluster);
      });
    },
  };
}

/** A daemon of a test's own, and mounts of a cluster under it. */
export class Host {
  readonly site: Site;
  readonly root: string;
  readonly client: Client;

  private constructor(site: Site, root: string, client: Client) {
    this.site = site;
    this.root = root;
    this.client = client;
  }

  static async start(t: ExecutionContext, env: NodeJS.ProcessEnv = {}): Promise<Host> {
    const { site, root } = realSite(t, env);
    const host = new Host(site, root, await site.start());
    // A client that is only killed leaves a session, and whoever comes next waits for a minute until it is stale.
    t.teardown(() => host.poly('stop', '--lazy'));
    return host;
  }

  poly(...args: string[]): Promise<Ended> {
    return runPoly(args, this.site.env);
  }

  /** `poly` that must succeed; its output. */
  async must(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.poly(...args);
    if (code !== 0) throw new Error(`poly ${args.join(' ')}: status ${String(code)}: ${stderr}`);
    return stdout;
  }

  directory(name: string): string {
    const path = join(this.root, name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  /** Mounts a tenant's directory at `name`; where it is. */
  async mount(cluster: Cluster, name: string, how: Mounting = {}): Promise<string> {
    const { user = 't1', source = `/${user}`, options = [], words = [] } = how;
    const path = this.directory(name);
    const settings = [`user=${user}`, `conf=${cluster.conf}`, ...options].join(',');
    await this.must('mount', `ceph:${source}`, path, '-o', settings, ...words);
    return path;
  }
}

export interface Mounting {
  user?: string;
  source?: string;
  options?: string[];
  /** More of the command line: --pool, --share. */
  words?: string[];
}
