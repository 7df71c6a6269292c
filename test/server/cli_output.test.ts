import test from 'ava';
import { quantile } from '../../server/cli/histogram.ts';
import { currentFlags, mountAt, parseMountinfo } from '../../server/mountinfo.ts';
import { mergedFlags } from '../../server/cli/remount_flow.ts';
import { bytes, duration, printable, since, table } from '../../server/cli/output.ts';

test('a table has columns as wide as their widest cell and no trailing blanks', (t) => {
  const rows = [
    { name: 'a', count: 1 },
    { name: 'longer', count: 1000 },
  ];
  const text = table(
    [
      { title: 'NAME', value: (row) => row.name },
      { title: 'N', value: (row) => row.count, align: 'right' },
      { title: 'SAME', value: (row) => row.name },
    ],
    rows,
  );
  t.is(text, 'NAME       N  SAME\na          1  a\nlonger  1000  longer');
});

test('control characters of a path neither break the table nor reach the terminal', (t) => {
  t.is(printable('a\nb\x1b[2J'), 'a\\012b\\033[2J');
  t.is(table([{ title: 'P', value: () => '/x\ny' }], [1]).split('\n').length, 2);
});

test('sizes, durations and ages are short', (t) => {
  t.deepEqual([0, 1023, 1536, 64 * 1024 ** 2].map(bytes), ['0', '1023', '1.5K', '64M']);
  t.deepEqual([0, 850, 4700, 12_000_000, 1.5e9].map(duration), ['0ns', '850ns', '4.7us', '12ms', '1.5s']);
  const now = Date.parse('2026-01-10T00:00:00Z');
  t.is(since('2026-01-09T23:59:55Z', now), '5s');
  t.is(since('2026-01-09T22:00:00Z', now), '2h');
  t.is(since('2026-01-11T00:00:00Z', now), '0s');
});

test('quantiles come from power-of-two buckets', (t) => {
  t.is(quantile([], 0.5), 0);
  t.is(quantile([0, 0, 0], 0.99), 0);
  // 100 values in [1024, 2048): the median is halfway.
  t.is(quantile([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100], 0.5), 1536);
  // 99 fast ones and a slow one: the 99th percentile is the end of the fast bucket.
  const mixed = [0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 1];
  t.is(quantile(mixed, 0.99), 16);
  t.true(quantile(mixed, 0.999) > 1024);
});

const MOUNTINFO = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:44 / /mnt/a\\040b rw,nosuid,noatime - fuse.poly local:/srv/x\\040y rw,user_id=0,group_id=0,sync
41 40 0:45 / /mnt/a\\040b ro,nosuid,nodev,relatime shared:7 master:2 - fuse.poly memory ro,user_id=0
`;

test('mountinfo: escapes, optional fields, and the topmost of stacked mounts', (t) => {
  const lines = parseMountinfo(MOUNTINFO);
  t.is(lines.length, 3);
  t.is(lines[1]?.source, 'local:/srv/x y');
  t.deepEqual(
    [mountAt('/mnt/a b', lines)].map((line) => [line?.device, line?.mountId, line?.type]),
    [['0:45', 41, 'fuse.poly']],
  );
  t.is(mountAt('/mnt', lines), undefined);
});

test('a remount keeps the flags that are not mentioned', (t) => {
  const [, first, second] = parseMountinfo(MOUNTINFO);
  t.truthy(first && second);
  if (!first || !second) return;
  t.deepEqual(currentFlags(first), { nosuid: true, noatime: true, sync: true });
  t.deepEqual(currentFlags(second), { ro: true, nosuid: true, nodev: true, relatime: true });
  t.deepEqual(mergedFlags(second, { ro: false }), { ro: false, nosuid: true, nodev: true, relatime: true });
  t.deepEqual(mergedFlags(first, { relatime: true }), { nosuid: true, sync: true, relatime: true });
});
