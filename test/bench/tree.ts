/** Work on a source tree: unpack it, compare it with its copy, add it to a git repository. */
import { mkdir, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Place, RunSettings } from './experiments.ts';
import { output } from './systems/process.ts';

const LIMIT_MS = 300_000;

/** A small linear congruential generator (Numerical Recipes): the tree is the same in every run. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Text that looks like source to diff and to git's compression: repeating words, varying lines. */
function sourceText(random: (below: number) => number, lines: number): string {
  const words = [
    'static',
    'int',
    'return',
    'struct',
    'node',
    'const',
    'if',
    'error',
    'size',
    'buffer',
    'while',
    'next',
  ];
  const line = (): string => {
    const picked = Array.from({ length: 3 + random(6) }, () => words[random(words.length)] ?? 'x');
    return `${' '.repeat(2 * random(4))}${picked.join(' ')} ${String(random(100_000))};`;
  };
  return Array.from({ length: lines }, line).join('\n') + '\n';
}

/**
 * Writes a tar file of `files` files, some 40 to a directory, most of 1 to 8 KiB and every hundredth of some 100, as
 * source trees have them; the unpacked tree goes again.
 */
export async function makeTar(scratch: string, files: number): Promise<string> {
  const random = generator(7);
  const root = join(scratch, 'tree');
  for (let i = 0; i < files; i++) {
    const dir = join(
      root,
      `module-${String(Math.floor(i / 400))}`,
      `part-${String(Math.floor(i / 40) % 10)}`,
    );
    if (i % 40 === 0) await mkdir(dir, { recursive: true });
    const lines = i % 100 === 0 ? 2500 : 25 + random(175);
    await writeFile(join(dir, `file-${String(i)}.c`), sourceText(random, lines));
  }
  const tar = join(scratch, 'tree.tar');
  await output('tar', ['-cf', tar, '-C', root, '--sort=name', '--mtime=2024-01-01', '.']);
  await rm(root, { recursive: true });
  return tar;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** Drops the kernel's unused dentries and inodes, as root; without it `diff` and `git` start with what untar left. */
async function forgetNames(): Promise<void> {
  if (process.getuid?.() !== 0) return;
  const file = await open('/proc/sys/vm/drop_caches', 'w');
  await file.write('2');
  await file.close();
  await sleep(300); // servers work off the FORGETs
}

/** `core.fsync=none`: the disk below a `local` system is not what is compared. */
async function gitAdd(dir: string): Promise<void> {
  const env = { ...process.env, GIT_CONFIG_NOSYSTEM: '1', GIT_CONFIG_GLOBAL: '/dev/null' };
  const settings = ['-c', 'core.fsync=none', '-c', 'gc.auto=0', '-c', 'safe.directory=*'];
  await output('git', ['-C', dir, ...settings, 'add', '.'], { env, limitMs: LIMIT_MS });
}

/** Each client has a tree and a copy; the figures are the time until the last client is done. */
export async function runTree(place: Place, settings: RunSettings): Promise<Record<string, number>> {
  const homes = Array.from({ length: settings.clients }, (_, i) => join(place.dir, `tree-${String(i)}`));
  const all = (work: (home: string) => Promise<unknown>): Promise<unknown> => Promise.all(homes.map(work));
  const unpack = (home: string, name: string): Promise<string> =>
    output('tar', ['-xf', settings.tar, '-C', join(home, name)], { limitMs: LIMIT_MS });
  try {
    await all(async (home) => {
      await mkdir(join(home, 'a'), { recursive: true });
      await mkdir(join(home, 'b'));
    });
    const untar = await timed(() => all((home) => unpack(home, 'a')));
    await all((home) => unpack(home, 'b'));
    await forgetNames();
    const diff = await timed(() =>
      all((home) => output('diff', ['-r', join(home, 'a'), join(home, 'b')], { limitMs: LIMIT_MS })),
    );
    await all((home) => output('git', ['init', '-q', join(home, 'a')]));
    const add = await timed(() => all((home) => gitAdd(join(home, 'a'))));
    return { untar, 'diff-r': diff, 'git-add': add };
  } finally {
    await all((home) => rm(home, { recursive: true, force: true }));
  }
}
