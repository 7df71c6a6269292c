/**
 * The table of programs under `poly run`: the same script on the kernel's own filesystem, on the mount by FUSE, and on the
 * mount by the fast path must say the same and leave the same tree; and the fast path must have served something.
 */
import type { ExecutionContext } from 'ava';
import type { Counts } from './counters.ts';
import { type Program, programs } from './fast_programs.ts';
import { applicationTest, type Place } from './place.ts';
import { type Outcome, tail } from './shell.ts';

/** Names, types, modes, sizes, links and contents, one line each. */
function listing({ unlike = [], without = [] }: Program): string {
  const none = (globs: string[]) => globs.map((glob) => `! -path '${glob}'`).join(' ');
  return `find . -mindepth 1 ${none(without)} \\( -type d -printf '%P %y %m\\n' -o -path './*' ${none(unlike)} -printf '%P %y %m %s %n %l\\n' -o -printf '%P %y %m %n\\n' \\) | sort
    find . -type f ${none([...without, ...unlike])} -print0 | sort -z | xargs -0 -r sha256sum`;
}

interface Run {
  where: string;
  outcome: Outcome;
  tree: string;
}

/** Runs the script in a new directory, and looks at what it left from outside the library. */
async function runIn(place: Place, program: Program, where: string, parent: string, fast: boolean) {
  const directory = `${parent}/${where}`;
  await place.sh(`mkdir ${where}`, 10, parent);
  const { counts, ...outcome } = fast
    ? await place.runFast(program.script, 120, directory)
    : await place.runBoth(program.script, 120, directory);
  const tree = await place.sh(listing(program), 60, directory);
  return { where, outcome, counts, tree };
}

function sameAs(t: ExecutionContext, reference: Run, run: Run): void {
  t.false(run.outcome.timedOut, `${run.where}: ${tail(run.outcome.output)}`);
  t.is(run.outcome.output, reference.outcome.output, `${run.where}: output`);
  t.is(run.outcome.status, reference.outcome.status, `${run.where}: status`);
  t.is(run.tree, reference.tree, `${run.where}: tree`);
}

function row(name: string, { served, declines }: Counts): string {
  const reasons = Object.entries(declines).map(([reason, count]) => `${reason} ${String(count)}`);
  return `${name.padEnd(10)} served ${String(served).padStart(7)}   to the kernel: ${reasons.join(', ') || 'nothing'}`;
}

for (const program of programs) {
  const needs = {
    programs: program.programs,
    size: '1g',
    minutes: 8,
  };
  applicationTest(`under poly run: ${program.name}`, needs, async (t, place) => {
    const host = await runIn(place, program, 'host', place.peer, false);
    t.is(host.outcome.status, 0, tail(host.outcome.output));
    sameAs(t, host, await runIn(place, program, 'fuse', place.directory, false));
    const fast = await runIn(place, program, 'fast', place.directory, true);
    t.log(row(program.name, fast.counts));
    sameAs(t, host, fast);
    t.true(fast.counts.served > 0);
  });
}
