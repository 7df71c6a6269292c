/** git on the mount: clone, work, check, pack. */
import { applicationTest, full, type Place } from './place.ts';

const git = 'git -c user.name=test -c user.email=test@localhost -c gc.auto=0 -c protocol.file.allow=always';
const tree = full ? '/usr/lib/python3.11/test' : '/usr/include/linux';

/** A repository with a history, on the disk. */
const origin = `
  git init -q -b main "$OUTSIDE/origin" && cd "$OUTSIDE/origin"
  cp -rL ${tree} tree && ${git} add . && ${git} commit -qm one
  find tree -name '*s.*' | while read -r f; do echo '# more' >>"$f"; done
  ${git} commit -qam two && git tag two
  git mv "$(find tree -type f | sort | sed -n 1p)" moved && ${git} commit -qm three
`;
const needs = { programs: ['git'], files: [tree], minutes: 5 };

async function prepare(place: Place): Promise<void> {
  await place.sh(origin, 120, place.outside);
}

applicationTest('git clone, fsck, status', needs, async (t, place) => {
  await prepare(place);
  await place.sh('git clone -q --no-local "$OUTSIDE/origin" copy', 120);
  await place.sh('git -C copy fsck --full --strict', 120);
  t.is(await place.sh('git -C copy status --porcelain'), '');
  await place.sh('diff -r --exclude=.git copy "$OUTSIDE/origin"');
});

applicationTest('git checkout, merge, rebase, worktree, stash', needs, async (t, place) => {
  await prepare(place);
  await place.sh(
    `git clone -q "$OUTSIDE/origin" copy && cd copy
    git checkout -q two && git checkout -q -b side
    echo side >side.txt && git add side.txt && ${git} commit -qm side
    ${git} merge -q -m merged main && git checkout -q main && echo x >x && git add x && ${git} commit -qm x
    ${git} rebase -q side
    git worktree add -q ../work HEAD~1 && git -C ../work status --porcelain && git worktree remove ../work
    echo dirty >>moved && ${git} stash -q && ${git} stash pop -q && git checkout -q -- moved && git clean -qfdx`,
    120,
  );
  t.is(await place.sh('git -C copy status --porcelain'), '');
  await place.sh('git -C copy fsck --full --strict', 120);
});

applicationTest('git gc, repack, clone with hard links', needs, async (t, place) => {
  await prepare(place);
  await place.sh(
    `git clone -q "$OUTSIDE/origin" copy && cd copy
    for i in $(seq 20); do echo $i >n && git add n && ${git} commit -qm "n $i"; done
    ${git} gc -q --prune=now && ${git} repack -qad --depth=50 --window=10 && git fsck --full --strict
    git clone -q --local . ../twin && git -C ../twin fsck --full --strict`,
    180,
  );
  t.is(await place.sh('git -C copy rev-parse HEAD'), await place.sh('git -C twin rev-parse HEAD'));
  const shared = await place.sh('find twin/.git/objects -type f -links +1 | wc -l');
  t.true(Number(shared) > 0, 'the clone shares its objects');
});

applicationTest('git: a killed writer leaves a repository that can be used', needs, async (t, place) => {
  await place.sh('git init -q -b main repo && cd repo && echo 0 >n && git add n && ' + `${git} commit -qm 0`);
  await place.run(
    `cd repo; (for i in $(seq 500); do echo $i >n; ${git} commit -qam "n $i" || true; done) & sleep 2; kill -9 $!; wait $! || true
    sleep 0.5; rm -f .git/*.lock .git/refs/heads/*.lock`,
    30,
  );
  await place.sh(`cd repo && git fsck --full --strict && ${git} commit -qam last --allow-empty`);
  t.regex(await place.sh('git -C repo log --format=%s -n 1'), /last/);
});
