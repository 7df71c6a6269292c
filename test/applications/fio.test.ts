/** fio writes patterns with checksums in many ways, and reads them back. */
import { applicationTest, full } from './place.ts';

const size = full ? '128m' : '24m';

const jobs: [title: string, options: string][] = [
  ['sequential writes of 64 KiB', '--rw=write --bs=64k'],
  ['random reads and writes of 4 KiB', '--rw=randrw --bs=4k'],
  ['random writes of any size at any offset', '--rw=randwrite --bsrange=512-128k --bs_unaligned=1'],
  ['O_DIRECT, 16 in flight', '--rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=16'],
  ['O_DIRECT, large blocks', '--rw=write --bs=1m --direct=1 --ioengine=libaio --iodepth=4'],
  ['O_DIRECT reads and writes', '--rw=randrw --bs=16k --direct=1 --ioengine=psync'],
  ['mapped memory', '--rw=randwrite --bs=4k --ioengine=mmap'],
  ['mapped memory, mixed', '--rw=randrw --bs=8k --ioengine=mmap'],
  ['two processes and fsync', '--rw=randwrite --bs=8k --numjobs=2 --fsync=64'],
  ['io_uring', '--rw=randwrite --bs=4k --ioengine=io_uring --iodepth=8'],
  ['preallocated, written with pwritev', '--rw=randwrite --bs=32k --ioengine=pvsync --fallocate=posix'],
];

for (const [title, options] of jobs) {
  applicationTest(`fio, ${title}`, { programs: ['fio'], size: '1g', minutes: 8 }, async (t, place) => {
    const command = `fio --name=verified --size=${size} ${options} --verify=crc32c --verify_fatal=1 --do_verify=1
      --verify_state_save=0 --randseed=4711 --group_reporting --thread=0`;
    const outcome = await place.run(`${command.replace(/\n\s*/g, ' ')} --directory=.`, 200);
    if (
      outcome.status !== 0 &&
      /io_uring|Function not implemented|Operation not permitted/.test(outcome.output)
    ) {
      const there = await place.run(`${command.replace(/\n\s*/g, ' ')} --directory=.`, 200, place.peer);
      t.not(there.status, 0, `fails here only: ${outcome.output}`);
      return;
    }
    t.is(outcome.status, 0, outcome.output);
    t.regex(outcome.output, /err= 0/);
    t.notRegex(outcome.output, /verify: bad|verify failed/);
  });
}

applicationTest(
  'fio, what one process wrote another verifies after a new mount',
  { programs: ['fio'], only: 'local' },
  async (t, place) => {
    const job =
      `fio --name=kept --size=16m --rw=randwrite --bs=4k --verify=crc32c --verify_fatal=1 --randseed=42
    --verify_state_save=0 --directory=`.replace(/\n\s*/g, ' ');
    await place.sh(`${job}. --do_verify=0`);
    // The same bytes through the backing directory, which the mount knows nothing of.
    const behind = `${place.mountPoint}/../back/d`;
    const output = await place.sh(`${job}. --verify_only`, 60, behind);
    t.regex(output, /err= 0/);
  },
);
