/** A filesystem that is full: clear errors, nothing lost, nobody dead, and room again after a deletion. */
import { applicationTest, type Needs, poly } from './place.ts';

const needs: Needs = { only: 'memory', size: '8m' };
/** The kernel tells a FUSE server of closed and forgotten files a little later, so their room comes back a little later. */
function untilItFits(command: string): string {
  return `for i in $(seq 20); do { ${command}; } 2>/dev/null && break; [ $i -lt 20 ] && sleep 0.1; done`;
}

const noSpace = /No space left on device/;

applicationTest('full: dd, cp and tar say so', needs, async (t, place) => {
  await place.sh(
    'echo precious >kept && head -c 1000000 /dev/urandom >kept2 && sha256sum kept kept2 >"$OUTSIDE/sums"',
  );
  const dd = await place.run('dd if=/dev/zero of=big bs=64k count=1000');
  t.not(dd.status, 0);
  t.regex(dd.output, noSpace);
  const size = Number(await place.sh('stat -c %s big'));
  t.true(size > 5_000_000 && size < 8 << 20, `${String(size)} bytes fitted`);
  t.regex((await place.run('cp -r /usr/include/linux . ')).output, noSpace);
  t.regex((await place.run('tar -C /usr/include -cf - linux | tar xf -')).output, noSpace);
  await place.sh('sha256sum -c "$OUTSIDE/sums"');
  await place.sh(
    `rm -rf big linux && ${untilItFits('head -c 4000000 /dev/zero >again')} && sha256sum -c "$OUTSIDE/sums"`,
  );
});

applicationTest('full: df and statfs tell the truth', needs, async (t, place) => {
  const [all, free] = (await place.sh('df -B1 --output=size,avail . | tail -n 1'))
    .trim()
    .split(/ +/)
    .map(Number);
  t.is(all, 8 << 20);
  t.true((free ?? 0) > 7 << 20);
  await place.run('cat /dev/zero >big');
  t.is(Number(await place.sh('df -B1 --output=avail . | tail -n 1')), 0);
  await place.sh(': >big');
  t.true(Number(await place.sh('df -B1 --output=avail . | tail -n 1')) > 7 << 20);
});

applicationTest('full: fallocate, O_DIRECT, append, sparse files', needs, async (t, place) => {
  t.regex((await place.run('fallocate -l 20M big')).output, noSpace);
  await place.sh('truncate -s 1G sparse && [ "$(stat -c %b sparse)" -lt 100 ] && rm -f sparse big');
  t.regex((await place.run('dd if=/dev/zero of=direct bs=1M oflag=direct')).output, noSpace);
  const before = await place.sh('stat -c %s direct');
  t.regex(
    (await place.run('head -c 100000 /dev/zero | dd of=direct oflag=append conv=notrunc')).output,
    noSpace,
  );
  t.true(Number(await place.sh('stat -c %s direct')) >= Number(before));
  await place.sh(`rm direct && ${untilItFits('fallocate -l 4M fits')} && [ "$(stat -c %s fits)" = 4194304 ]`);
});

applicationTest('full: no more names than inodes=', { only: 'memory' }, async (t, place) => {
  await poly('mount', 'memory', place.directory, '-o', 'size=8m,inodes=100');
  try {
    const touch = await place.run('for i in $(seq 200); do : >f$i || exit 1; done');
    t.regex(touch.output, noSpace);
    const made = Number(await place.sh('ls | wc -l'));
    t.true(made > 80 && made <= 100, `${String(made)} files`);
    t.regex((await place.run('mkdir one-more')).output, noSpace);
    await place.sh('rm f1 && mkdir one-more && df -i .');
  } finally {
    await poly('umount', place.directory);
  }
});

applicationTest(
  'full: SQLite reports it and keeps its data',
  { ...needs, programs: ['sqlite3'] },
  async (t, place) => {
    await place.sh(`sqlite3 db 'CREATE TABLE t(b); INSERT INTO t VALUES(randomblob(100000));'`);
    const outcome = await place.run(
      `sqlite3 -bail db 'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000)
      INSERT INTO t SELECT randomblob(50000) FROM c;'`,
    );
    t.not(outcome.status, 0);
    t.regex(outcome.output, /database or disk is full|disk I\/O error/);
    t.is(
      await place.sh(`sqlite3 db 'PRAGMA integrity_check; SELECT count(*), sum(length(b)) FROM t;'`),
      'ok\n1|100000\n',
    );
  },
);

applicationTest('full: many writers at once, then life goes on', needs, async (t, place) => {
  const outcome = await place.run(
    `for w in 1 2 3 4 5 6; do ((dd if=/dev/urandom of=w$w bs=8k count=400 2>&1 || true) | grep -o -m 1 'No space left' || echo done) & done; wait`,
    60,
  );
  t.regex(outcome.output, /No space left/);
  t.is(outcome.output.trim().split('\n').length, 6);
  await place.sh('rm w* && git init -q . && seq 1000 >f && git add f && git fsck');
});
