/** A statically linked program: nothing can be preloaded into it, it has only system calls. */
import { applicationTest } from './place.ts';

const needs = { programs: ['busybox'], files: ['/usr/include/linux'] };
const bb = 'busybox';

applicationTest('static busybox: unpack, change, search, pack, compare', needs, async (t, place) => {
  const output = await place.sh(
    `${bb} tar -C /usr/include -cf "$OUTSIDE/in.tar" linux && ${bb} tar -xf "$OUTSIDE/in.tar"
    (cd /usr/include && find linux -type f | sort | xargs sha256sum) >"$OUTSIDE/sums"
    ${bb} sha256sum -c "$OUTSIDE/sums" | ${bb} grep -vc ': OK$' || true
    ${bb} find linux -name '*.h' | ${bb} xargs ${bb} sed -i 's/__KERNEL__/<=kernel=>/g'
    (${bb} grep -rl __KERNEL__ linux || true) | ${bb} wc -l
    ${bb} find linux -name '*.h' | ${bb} xargs ${bb} sed -i 's/<=kernel=>/__KERNEL__/g'
    ${bb} sha256sum -c "$OUTSIDE/sums" | ${bb} grep -vc ': OK$' || true
    ${bb} gzip -c "$OUTSIDE/in.tar" >t.gz && ${bb} gunzip -t t.gz && ${bb} gunzip -c t.gz | ${bb} cmp - "$OUTSIDE/in.tar"
    ${bb} cp -a linux copy && ${bb} diff -r linux copy && ${bb} rm -r linux copy t.gz && ${bb} ls -A`,
    90,
  );
  t.is(output, '0\n0\n0\n');
});

applicationTest('static and dynamic programs see the same at once', needs, async (t, place) => {
  const output = await place.sh(`
    for i in 1 2 3 4 5; do
      echo $i >f; ${bb} cat f; ${bb} sh -c "echo more >>f"; tail -n 1 f
      ${bb} truncate -s 100 f; stat -c %s f; mv f g; ${bb} stat -c %s g; ${bb} mv g f; ${bb} ln f h; stat -c %h f; rm h
    done`);
  t.is(output, [1, 2, 3, 4, 5].map((n) => `${String(n)}\nmore\n100\n100\n2\n`).join(''));
});

applicationTest(
  'one shared descriptor, written by static and dynamic programs in turn',
  needs,
  async (t, place) => {
    const output = await place.sh(
      `(echo a; ${bb} echo b; /bin/echo c; ${bb} echo d) >f; cat f; { read -r x; ${bb} cat; } <f >g; cat g`,
    );
    t.is(output, 'a\nb\nc\nd\nb\nc\nd\n');
  },
);
