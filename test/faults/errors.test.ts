/** Errors from below are reported to the program that has to know, never lost: a full filesystem, a broken disk. */
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { temporary, until } from '../server/helpers.ts';
import { mountReal, mountLines, realSite, sh } from '../server/real.ts';
import { kill, programs, real, runningService, whyNot } from './harness.ts';

const errorFs = `${programs}/poly-error-fs`;

real(
  'memory: a full filesystem says ENOSPC, keeps what it has, and takes more when there is room',
  async (t) => {
    const { site, root } = realSite(t);
    let client = await site.start();
    const m = join(root, 'm');
    await mountReal(site, client, m, 'memory', { size: '4m', inodes: '50' });
    await sh(`head -c 1000000 /dev/urandom > ${m}/kept; sha1sum ${m}/kept > ${root}/sum`);
    await t.throwsAsync(sh(`dd if=/dev/zero of=${m}/big bs=64k count=1000`), { message: /No space left/ });
    await t.throwsAsync(sh(`dd if=/dev/zero of=${m}/big bs=4k count=1 oflag=append conv=notrunc`), {
      message: /No space left/,
    });
    await t.throwsAsync(sh(`for i in $(seq 60); do : > ${m}/f$i; done`), { message: /No space left/ });
    client = await kill(site, client, { service: true });
    await runningService(client);
    await sh(`sha1sum -c ${root}/sum`);
    await t.throwsAsync(sh(`dd if=/dev/zero of=${m}/big bs=4k count=1 oflag=append conv=notrunc`), {
      message: /No space left/,
    });
    await sh(`rm ${m}/big ${m}/f*; head -c 2000000 /dev/zero > ${m}/again; sha1sum -c ${root}/sum`);
  },
);

/** The directory with errors, mounted; its server's pid. */
async function startErrorFs(t: ExecutionContext): Promise<string> {
  const backing = temporary(t, 'poly-backing-');
  const broken = temporary(t, 'poly-broken-');
  const names = ['read-EIO', 'write-EIO', 'write-ENOSPC', 'write-EDQUOT', 'fsync-EIO', 'flush-EIO'];
  for (const name of names) writeFileSync(join(backing, `fail-${name}`), 'contents\n');
  writeFileSync(join(backing, 'sound'), 'sound\n');
  const server = spawn(errorFs, [backing, broken], { stdio: 'ignore' });
  t.teardown(async () => {
    await sh(`umount -l ${broken}`).catch(() => undefined);
    server.kill('SIGKILL');
  });
  await until('the error filesystem is mounted', 5000, () =>
    mountLines().some((line) => line.path === broken),
  );
  return broken;
}

real(
  'local: errors of the filesystem below reach the program',
  async (t) => {
    const broken = await startErrorFs(t);
    const { site, root } = realSite(t);
    const client = await site.start();
    const m = join(root, 'm');
    await mountReal(site, client, m, `local:${broken}`);
    const write = (name: string, how = ''): Promise<string> =>
      sh(`dd if=/dev/zero of=${m}/${name} bs=4k count=3 conv=notrunc${how} status=none`);
    await t.throwsAsync(sh(`cat ${m}/fail-read-EIO`), { message: /Input\/output error/ });
    await t.throwsAsync(write('fail-write-EIO'), { message: /Input\/output error/ });
    await t.throwsAsync(write('fail-write-ENOSPC'), { message: /No space left/ });
    await t.throwsAsync(write('fail-write-EDQUOT'), { message: /[Qq]uota exceeded/ });
    await t.throwsAsync(write('fail-fsync-EIO', ',fsync'), { message: /Input\/output error/ });
    await t.throwsAsync(write('fail-flush-EIO'), { message: /Input\/output error/ });
    t.is(await sh(`cat ${m}/sound; echo more >> ${m}/sound; cat ${m}/sound`), 'sound\nsound\nmore\n');
    t.is((await client.request('status', {})).services[0]?.restarts, 0);
  },
  { reason: whyNot(errorFs) },
);

async function loopDevice(t: ExecutionContext): Promise<string> {
  const image = join(temporary(t, 'poly-image-'), 'image');
  const directory = temporary(t, 'poly-small-');
  await sh(`truncate -s 8M ${image} && mkfs.ext4 -q ${image} && mount -o loop ${image} ${directory}`);
  t.teardown(() => sh(`umount -l ${directory}`).catch(() => undefined));
  return directory;
}

function hasLoop(): string | undefined {
  try {
    return readFileSync('/proc/devices', 'utf8').includes(' loop\n')
      ? whyNot('/sbin/mkfs.ext4')
      : 'needs loop devices';
  } catch {
    return 'needs /proc/devices';
  }
}

real(
  'local: a full disk says ENOSPC in time',
  async (t) => {
    const small = await loopDevice(t);
    const { site, root } = realSite(t);
    const client = await site.start();
    const m = join(root, 'm');
    mkdirSync(m);
    await mountReal(site, client, m, `local:${small}`);
    await sh(`echo kept > ${m}/kept`);
    // With delayed allocation ext4 reserves the space at write(2), so that is where it fails.
    await t.throwsAsync(sh(`dd if=/dev/zero of=${m}/big bs=64k count=500 conv=fsync`), {
      message: /No space left/,
    });
    t.is(await sh(`cat ${m}/kept; rm ${m}/big; echo again > ${m}/again; cat ${m}/again`), 'kept\nagain\n');
  },
  { reason: hasLoop() },
);
