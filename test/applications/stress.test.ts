/** stress-ng's filesystem stressors, one by one; what fails must fail on the host's filesystem, too. */
import { applicationTest, full } from './place.ts';
import { tail } from './shell.ts';

const quick = [
  'chmod',
  'copy-file',
  'dentry',
  'dir',
  'fallocate',
  'filename',
  'flock',
  'hdd',
  'iomix',
  'link',
  'locka',
  'open',
  'rename',
  'symlink',
  'utime',
  'xattr',
];
// Left out: those that test no filesystem at a path (binderfs, bind-mount, eventfd, procfs), and getdent, which lists
// everything below / instead and hangs with any mount of anybody's that does.
const long = [
  'access',
  'chattr',
  'chdir',
  'chown',
  'dirdeep',
  'dirmany',
  'dnotify',
  'dup',
  'fanotify',
  'fcntl',
  'fiemap',
  'file-ioctl',
  'fpunch',
  'fsize',
  'fstat',
  'handle',
  'inode-flags',
  'inotify',
  'io',
  'ioprio',
  'lease',
  'lockf',
  'lockofd',
  'mknod',
  'sync-file',
  'touch',
  'verity',
];
/** By default some want a gigabyte or more. */
const sizes =
  '--hdd-bytes 64m --iomix-bytes 64m --fallocate-bytes 64m --copy-file-bytes 128m --sync-file-bytes 64m';
// Of stress-ng(1): what a stressor may end with, other than 0. Anything else is our own mistake.
const FAILED = 2;
const NO_RESOURCE = 3;
const NOT_IMPLEMENTED = 4;

function stressorTest(name: string, isLong: boolean): void {
  const needs = { programs: ['stress-ng'], full: isLong, size: '2g', minutes: 6 };
  applicationTest(`stress-ng ${name}`, needs, async (t, place) => {
    const run = full ? '2s' : '1s';
    const script = `stress-ng --${name} 2 --timeout ${run} --verify --temp-path . ${sizes}`;
    const here = await place.run(script, 150);
    if (here.status === 0 || here.status === NOT_IMPLEMENTED) {
      t.pass();
      return;
    }
    t.true(here.status === FAILED || here.status === NO_RESOURCE, tail(here.output));
    const there = await place.run(script, 150, place.peer);
    t.not(there.status, 0, `fails here only, status ${String(here.status)}:\n${tail(here.output)}`);
    t.log(`fails on the host, too: ${tail(there.output, 5)}`);
  });
}

for (const name of quick) stressorTest(name, false);
for (const name of long) stressorTest(name, true);
