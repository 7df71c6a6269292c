/**
 * Run by user.test.ts as an ordinary user:  node user_storm.js HOME SPEC KILLS
 * A daemon, a mount by fusermount3 and services without any capability, killed under programs that check every answer.
 */
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { StatusResult } from '../../server/protocol.ts';

const [home = '', spec = '', kills = ''] = process.argv.slice(2);
const programs =
  process.env['POLY_FAULTS'] ?? fileURLToPath(new URL('../../../build/native/test/faults', import.meta.url));
const poly = fileURLToPath(new URL('../../../server/bin/poly.js', import.meta.url));
const mount = join(home, 'mnt');

function run(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [poly, ...args], {
    encoding: 'utf8',
    timeout: 20_000,
  });
  if (status !== 0) throw new Error(`poly ${args.join(' ')}: ${stderr}`);
  return stdout;
}

async function killService(): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    const { services } = JSON.parse(run('status', '--json')) as StatusResult;
    const service = services[0];
    if (service?.state === 'running') {
      try {
        process.kill(service.pid, 'SIGKILL');
      } catch {
        // Died by itself meanwhile.
      }
      return;
    }
    await sleep(20);
  }
  throw new Error('no service runs');
}

async function storm(): Promise<number> {
  const workload = spawn(join(programs, 'poly-fault-workload'), [mount, '--seconds', '3600'], {
    stdio: 'inherit',
  });
  const ended = new Promise<number>((resolve) => {
    workload.once('close', (code) => {
      resolve(code ?? 9);
    });
  });
  for (let n = 0; n < Number(kills) && workload.exitCode === null; n++) {
    await sleep(100 + Math.random() * 300);
    await killService();
  }
  workload.kill('SIGTERM');
  return ended;
}

run('start');
try {
  run('mount', spec, mount);
  process.exitCode = await storm();
  run('umount', mount);
} finally {
  run('stop');
}
