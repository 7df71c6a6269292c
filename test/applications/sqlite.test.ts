/** SQLite: its locks, its journals, its shared memory file, several processes at once. */
import { applicationTest, full } from './place.ts';

const rows = full ? 400 : 60;
const needs = { programs: ['sqlite3'], minutes: 4 };

for (const mode of ['wal', 'delete', 'truncate', 'persist']) {
  applicationTest(`sqlite3, 4 writers at once, journal_mode=${mode}`, needs, async (t, place) => {
    await place.sh(
      `sqlite3 db 'PRAGMA journal_mode=${mode}; CREATE TABLE t(writer, n, PRIMARY KEY(writer, n));'`,
    );
    await place.sh(
      `for w in 1 2 3 4; do
        (for n in $(seq ${String(rows)}); do echo "BEGIN IMMEDIATE; INSERT INTO t VALUES($w, $n); COMMIT;"; done) |
          sqlite3 -bail -cmd '.timeout 60000' db &
        pids[$w]=$!
      done
      for w in 1 2 3 4; do wait \${pids[$w]}; done`,
      150,
    );
    t.is(
      await place.sh(`sqlite3 db 'PRAGMA integrity_check; SELECT count(*) FROM t;'`),
      `ok\n${String(4 * rows)}\n`,
    );
  });
}

applicationTest(
  'sqlite3, readers see whole transactions while a writer works (WAL)',
  needs,
  async (t, place) => {
    await place.sh(`sqlite3 db 'PRAGMA journal_mode=wal; CREATE TABLE t(n); '`);
    const seen = await place.sh(
      `(for n in $(seq ${String(rows)}); do echo "BEGIN; INSERT INTO t VALUES($n); INSERT INTO t VALUES(-$n); COMMIT;"; done) |
      sqlite3 -bail -cmd '.timeout 60000' db & writer=$!
    while kill -0 $writer 2>/dev/null; do sqlite3 -cmd '.timeout 60000' db 'SELECT coalesce(sum(n), 0) FROM t;'; done
    wait $writer`,
      120,
    );
    t.deepEqual(new Set(seen.trim().split('\n')), new Set(['0']));
  },
);

applicationTest('sqlite3, killed writers lose no committed row', needs, async (t, place) => {
  await place.sh(`sqlite3 db 'PRAGMA journal_mode=wal; PRAGMA synchronous=full; CREATE TABLE t(n);'`);
  const rounds = full ? 20 : 5;
  await place.sh(
    `for round in $(seq ${String(rounds)}); do
      (n=0; while :; do n=$((n + 1)); echo "INSERT INTO t VALUES($n); SELECT 'row';"; done) |
        sqlite3 -bail -cmd '.timeout 30000' db >>acknowledged & writer=$!
      sleep 0.4
      kill -9 $writer; wait $writer || true
      [ "$(sqlite3 -cmd '.timeout 30000' db 'PRAGMA integrity_check;')" = ok ]
    done 2>/dev/null`,
    120,
  );
  // What the killed process had not written to its output yet may be committed all the same, never the reverse.
  const [committed, acknowledged] = (
    await place.sh(`sqlite3 db 'SELECT count(*) FROM t;'; grep -c row acknowledged || true`)
  )
    .trim()
    .split('\n')
    .map(Number);
  t.true((committed ?? 0) >= (acknowledged ?? 1), `${String(committed)} of ${String(acknowledged)}`);
  t.true((committed ?? 0) > 0);
});

applicationTest('sqlite3, VACUUM, attached databases, backup', needs, async (t, place) => {
  const out = await place.sh(`sqlite3 a "
    CREATE TABLE t(n INTEGER PRIMARY KEY, blob);
    WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000)
      INSERT INTO t SELECT x, randomblob(300) FROM c;
    DELETE FROM t WHERE n % 3 = 0; VACUUM;
    ATTACH 'b' AS b; CREATE TABLE b.t AS SELECT * FROM main.t;
    BEGIN; UPDATE t SET n = n + 100000 WHERE n < 100; DELETE FROM b.t WHERE n < 100; COMMIT;
    PRAGMA integrity_check;" && sqlite3 a '.backup c' && cmp <(sqlite3 a .dump) <(sqlite3 c .dump) && sqlite3 c 'SELECT count(*) FROM t;'`);
  t.is(out, 'ok\n13334\n');
});
