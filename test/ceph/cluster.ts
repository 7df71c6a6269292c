/** Clusters (scripts/ceph-cluster.sh) for tests and the benchmark. */
import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SCRIPT = fileURLToPath(new URL('../../../scripts/ceph-cluster.sh', import.meta.url));
export const UP_MS = 100_000;

export type Daemon = 'mon' | 'osd' | 'mds';

export interface ClusterOptions {
  /** NAME or NAME:QUOTA_BYTES. */
  tenants?: string[];
  /** Its OSD can be killed. */
  durable?: boolean;
}

/** The Debian packages that a cluster needs and that are not installed, or undefined. */
export function missingPackages(): string | undefined {
  try {
    execFileSync('bash', [SCRIPT, 'missing'], { encoding: 'utf8' });
    return undefined;
  } catch (error) {
    return `needs the Debian packages ${String((error as { stdout?: unknown }).stdout).trim()}`;
  }
}

function script(...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const done = (error: Error | null, stdout: string, stderr: string): void => {
      if (error) reject(new Error(`ceph-cluster.sh ${args.join(' ')}: ${stderr || error.message}`));
      else resolve(stdout);
    };
    execFile('bash', [SCRIPT, ...args], { timeout: UP_MS, killSignal: 'SIGKILL' }, done);
  });
}

export class Cluster {
  readonly conf: string;
  private readonly top: string;
  private readonly dir: string;

  private constructor(top: string) {
    this.top = top;
    this.dir = join(top, 'c');
    this.conf = join(this.dir, 'ceph.conf');
  }

  static async up({ tenants = ['t1', 't2'], durable = false }: ClusterOptions = {}): Promise<Cluster> {
    const cluster = new Cluster(mkdtempSync(join(tmpdir(), 'poly-ceph-')));
    const store = durable ? ['--store', 'bluestore'] : [];
    await script('up', cluster.dir, ...store, ...tenants.flatMap((tenant) => ['--tenant', tenant]));
    return cluster;
  }

  async down(): Promise<void> {
    await script('down', this.dir);
    rmSync(this.top, { recursive: true, force: true });
  }

  async kill(daemon: Daemon): Promise<void> {
    await script('kill', this.dir, daemon);
  }

  /** Stops one (SIGSTOP) and lets it go on (SIGCONT), as if it were slow. */
  async signal(daemon: Daemon, signal: 'SIGSTOP' | 'SIGCONT'): Promise<void> {
    const daemons = await script('status', this.dir);
    process.kill(Number(new RegExp(`^${daemon} (\\d+)$`, 'm').exec(daemons)?.[1]), signal);
  }

  async start(daemon: Daemon): Promise<void> {
    await script('start', this.dir, daemon);
  }

  /** How many clients of this user the MDS knows. */
  async sessions(user: string): Promise<number> {
    const text = await script('ask', this.dir, 'mds', 'session', 'ls');
    const sessions = JSON.parse(text) as { client_metadata: { entity_id?: string } }[];
    return sessions.filter((session) => session.client_metadata.entity_id === user).length;
  }

  keyring(user: string): string {
    return join(this.dir, `ceph.client.${user}.keyring`);
  }
}
