/** Programs with the preload library and programs without it on the same files, at the same time. */
import type { ExecutionContext } from 'ava';
import { chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { poly as polyProgram, root } from '../server/cli_harness.ts';
import { applicationTest, full, isRoot, type Place } from './place.ts';
import { tail } from './shell.ts';

const MIXED = join(root, 'build/native/test/fast/poly-mixed');
const CONFORMANCE = join(root, 'build/native/test/conformance/poly-conformance');
const NOBODY = 65534;

/** The reference is tmpfs where there is one: inode numbers are not used again there. */
async function mixed(t: ExecutionContext, place: Place, as: string): Promise<void> {
  const [tree, reference] = [join(place.directory, 'tree'), join(place.outside, 'reference')];
  await place.sh('mkdir tree');
  const shm = (await place.sh(`[ -w /dev/shm ] && mktemp -d /dev/shm/poly-mixed.XXXXXX || true`)).trim();
  const model = shm === '' ? reference : shm;
  if (shm === '') mkdirSync(reference);
  if (as !== '') for (const directory of [tree, model]) chownSync(directory, NOBODY, NOBODY);
  const seed = process.env['POLY_SEED'] === undefined ? '' : `--seed ${process.env['POLY_SEED']}`;
  const storm = process.env['POLY_TEST_STORMS'] === '1';
  const operations = storm ? 1_000_000 : full ? 50_000 : 20_000;
  const seconds = storm ? 400 : 60;
  const under = `"${process.execPath}" "${polyProgram}" run --`;
  try {
    const outcome = await place.runBoth(
      `${as} "${MIXED}" ${seed} --operations ${String(operations)} --seconds ${String(seconds)} "${tree}" "${model}" ${under}`,
      seconds + 60,
    );
    t.log(
      outcome.output
        .split('\n')
        .filter((line) => /^seed|operations/.test(line))
        .join(', '),
      outcome.counts,
    );
    t.is(outcome.status, 0, tail(outcome.output, 60));
    t.true(outcome.counts.served > 1000);
  } finally {
    await place.sh(`rm -rf "${model}"`);
  }
}

applicationTest('both ways, random operations in turn', { files: [MIXED], minutes: 8 }, async (t, place) => {
  await mixed(t, place, '');
});

const asUser = { files: [MIXED], programs: ['setpriv'], root: true, minutes: 8, only: 'memory' as const };
applicationTest('both ways, random operations of an ordinary user', asUser, async (t, place) => {
  await mixed(t, place, `setpriv --reuid ${String(NOBODY)} --regid ${String(NOBODY)} --clear-groups`);
});

/** One writes the file longer, by the fast path; the other reads and writes inside, through the kernel, and then all of it. */
const GROWS = `
import os, random, subprocess, sys
seed, rounds, *under = sys.argv[1:]
random.seed(int(seed))
fd = os.open('f', os.O_CREAT | os.O_RDWR, 0o644)
GROW = """
import os, sys
fd = os.open('f', os.O_RDWR)
for line in sys.stdin:
    offset, size = map(int, line.split())
    os.pwrite(fd, b'g' * size, offset)
    print('grown', flush=True)
"""
other = subprocess.Popen([*under, sys.executable, '-c', GROW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
model, short, wrong = bytearray(), 0, 0
for i in range(int(rounds)):
    if i % 50 == 49:
        os.ftruncate(fd, 0)
        model.clear()
    more = random.randint(1, 3000)
    print(len(model), more, file=other.stdin, flush=True)
    assert other.stdout.readline() == 'grown\\n'
    model += b'g' * more
    for j in range(random.randint(0, 3)):
        at = random.randrange(len(model))
        size = min(random.randint(1, 5000), len(model) - at)
        if random.random() < 0.5:
            os.pwrite(fd, b'w' * size, at)
            model[at:at + size] = b'w' * size
        else:
            wrong += os.pread(fd, size, at) != model[at:at + size]
    found = os.pread(fd, len(model) + 1, 0)
    short += len(found) < len(model)
    wrong += found != model
print('seed', seed, 'short', short, 'wrong', wrong)
other.stdin.close()
other.wait()
`;

applicationTest(
  'both ways, a file that one makes longer and the other writes inside',
  { programs: ['python3'] },
  async (t, place) => {
    const seed = process.env['POLY_SEED'] ?? String(Math.trunc(Math.random() * 1e9));
    writeFileSync(join(place.outside, 'grows.py'), GROWS);
    const outcome = await place.runBoth(
      `python3 "$OUTSIDE/grows.py" ${seed} ${full ? '8000' : '2000'} "${process.execPath}" "${polyProgram}" run --`,
    );
    t.is(outcome.output.trim(), `seed ${seed} short 0 wrong 0`);
    t.true(outcome.counts.served > 1000);
  },
);

/** Each in a directory of its own, on one instance. */
const quickAreas = [
  'io',
  'append',
  'rename',
  'unlinked',
  'truncate',
  'link',
  'handed_on',
  'readdir',
  'permissions',
];

applicationTest(
  'both ways, the conformance suite at the same time',
  { files: [CONFORMANCE], minutes: 8 },
  async (t, place) => {
    const filters = full ? '' : quickAreas.map((area) => `--filter ${area}`).join(' ');
    const suite = `"${CONFORMANCE}" --patience 3 ${filters}`;
    const outcome = await place.runBoth(
      `mkdir a b; chmod 755 a b
      ${suite} a >"$OUTSIDE/fuse" 2>&1 & fuse=$!
      "${process.execPath}" "${polyProgram}" run -- ${suite} b >"$OUTSIDE/fast" 2>&1 & fast=$!
      wait $fuse || true; wait $fast || true; grep -hE '^FAIL|passed' "$OUTSIDE/fuse" "$OUTSIDE/fast"`,
      360,
    );
    const tallies = [...outcome.output.matchAll(/^(\d+) passed, (\d+) failed/gm)];
    t.log(tallies.map(([line]) => line).join('; '), outcome.counts);
    t.is(tallies.length, 2, tail(outcome.output));
    for (const [, passed, failed] of tallies) {
      t.is(failed, '0', tail(outcome.output));
      t.true(Number(passed) > (isRoot ? 50 : 30));
    }
    t.true(outcome.counts.served > 1000);
  },
);
