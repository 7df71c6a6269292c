/** dbench: the file operations of an office's file server, as recorded. */
import { applicationTest, full } from './place.ts';

const load = '/usr/share/dbench/client.txt';
const seconds = full ? 6 : 4;

for (const clients of full ? [1, 4, 16] : [2]) {
  const needs = { programs: ['dbench'], files: [load], size: '2g', minutes: 4 };
  applicationTest(`dbench, ${String(clients)} clients`, needs, async (t, place) => {
    const output = await place.sh(
      `dbench -c ${load} -D . -t ${String(seconds)} ${String(clients)}`,
      seconds * 2 + 90,
    );
    t.regex(output, /^Throughput [0-9.]+ MB\/sec/m);
    t.notRegex(output, /\bERROR\b|mismatch|^\[\d+\]/im);
    // It cleans up behind itself.
    t.is(await place.sh('find . -type f | wc -l'), '0\n');
  });
}
