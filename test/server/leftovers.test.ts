/** How the test runner finds what a step has left running (scripts/lib.sh). */
import test from 'ava';
import { root, run } from './cli_harness.ts';

test('a leftover is found and ended, and who looks for it is none', async (t) => {
  const word = `POLY_TEST_LEFTOVER=${String(process.pid)}`;
  const script = `set -eu
. scripts/lib.sh
export ${word}
(exec setsid sleep 60 >/dev/null &)
sleep 0.2
found=$(processes_with ${word})
end_processes ${word}
echo "$(wc -w <<<"$found") $(processes_with ${word})"`;
  const begin = Date.now();
  const ended = await run('bash', ['-c', `cd ${root}; ${script}`]);
  t.deepEqual({ ...ended, stderr: '' }, { code: 0, stdout: '1 \n', stderr: '' });
  t.true(Date.now() - begin < 3000);
});
