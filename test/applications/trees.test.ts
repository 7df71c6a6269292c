/** Copying whole trees in and out, with everything that hangs on a file. */
import { applicationTest, full, isRoot } from './place.ts';

const real = full ? '/usr/lib/python3.11/test' : '/usr/include/linux';

/** Real files, and all the kinds and properties that copying programs forget. */
const makeTree = `
  umask 022
  mkdir -p "$OUTSIDE/tree" && cd "$OUTSIDE/tree"
  cp -r ${real} real
  ln "$(find real -type f | sort | sed -n 1p)" hard && ln hard hard2
  ln -s real link && ln -s /nowhere/at/all dangling && ln -s "$(printf 'x%.0s' $(seq 1000))" long-target
  mkfifo fifo && truncate -s 8M hole && printf end >>hole && dd if=/dev/zero of=mid-hole bs=4k seek=100 count=1 status=none
  mkdir empty 'with space' $'new\\nline' "$(printf 'n%.0s' $(seq 255))" && touch "with space/ü€" '*' './-n'
  chmod 1777 empty && chmod 2750 'with space' && chmod 4711 hard
  # rsync leaves times alone that differ by less than a second.
  find . -depth -exec touch -h -d '2019-03-04 05:06:07.123456789 UTC' {} +
  touch -d '1970-01-02 03:04:05.678901234 UTC' real/old && touch -d '2100-01-01 UTC' future && touch -h -d '2001-01-01 UTC' link
  setfattr -n user.color -v blue hard && setfattr -n user.empty hole
  setfacl -m u:1234:rw-,g:99:r-- future && setfacl -d -m u:1234:rwx empty
  ${isRoot ? 'chown 1234:99 future && chown -h 7:8 link && mknod null c 1 3 && touch -d 2019-01-01 null && setcap cap_net_raw+ep hard2 2>/dev/null || true' : ''}
  touch -d '2020-02-02 UTC' empty real .
`;

/** One line for each file with all that must survive a copy. */
const describe = `find . -printf '%P|%y|%m|%U|%G|%n|%T@|%l|' \\( -type f -printf '%s' -o -true \\) -printf '\\0' | sort -z | tr '\\0' '\\n'`;
const attributes = `getfattr -R -h -d -m - -e hex . 2>/dev/null | grep -v '^$' | sort`;

const needs = {
  programs: ['tar', 'rsync', 'setfattr', 'setfacl', 'getfattr'],
  files: [real],
  minutes: 4,
};

const tar = 'tar --format=posix --sparse --xattrs --xattrs-include="*" --acls';
const copiers: [title: string, script: string][] = [
  ['tar', `mkdir copy && ${tar} -C "$OUTSIDE/tree" -cf - . | ${tar} -C copy -xpf -`],
  ['cp -a', 'cp -a "$OUTSIDE/tree" copy'],
  ['cp -a --sparse=always', 'cp -a --sparse=always "$OUTSIDE/tree" copy'],
  ['rsync -aHAXS', 'rsync -aHAXS "$OUTSIDE/tree/" copy'],
];

for (const [title, script] of copiers) {
  applicationTest(`${title} carries a tree over whole`, needs, async (t, place) => {
    await place.sh(makeTree, 60, place.outside);
    await place.sh(script, 120);
    for (const what of [describe, attributes]) {
      await place.sh(
        `(cd "$OUTSIDE/tree"; ${what}) >"$OUTSIDE/source"; (cd copy; ${what}) >"$OUTSIDE/copied"`,
        60,
      );
      t.is(await place.sh('wc -l <"$OUTSIDE/source"'), await place.sh('wc -l <"$OUTSIDE/copied"'));
      t.is(await place.sh('diff "$OUTSIDE/source" "$OUTSIDE/copied" | head -n 20 || true'), '');
    }
    await place.sh('diff -r --no-dereference --exclude=null --exclude=fifo copy "$OUTSIDE/tree"', 60);
    t.is(await place.sh('rsync -aHAXn --checksum --itemize-changes --delete "$OUTSIDE/tree/" copy/', 60), '');
    // And back again, from the mount to the disk.
    await place.sh(
      'cp -a copy "$OUTSIDE/back" && rsync -aHAXn --checksum -i "$OUTSIDE/tree/" "$OUTSIDE/back/"',
      60,
    );
    const blocks = Number(await place.sh('stat -c %b copy/hole'));
    t.true(blocks < 8192, `the hole takes ${String(blocks)} blocks of the 16384 it spans`);
    await place.sh('rm -rf copy && [ -z "$(ls -A)" ]', 60);
  });
}

applicationTest('find, ls, du and rm agree about a large directory', { minutes: 4 }, async (t, place) => {
  const count = full ? 50_000 : 5000;
  await place.sh(
    `mkdir many && cd many && seq -f 'a-file-with-a-name-%.0f' ${String(count)} | xargs touch`,
    60,
  );
  t.is(Number(await place.sh('find many -type f | wc -l')), count);
  t.is(Number(await place.sh('ls -f many | grep -c ^a-file')), count);
  t.is(Number(await place.sh('ls -f many | sort | uniq -d | wc -l')), 0);
  // Deleting while listing, as rm does.
  await place.sh(`cd many && find . -name '*[13579]' -delete`, 60);
  t.is(Number(await place.sh('find many -type f | wc -l')), count / 2);
  await place.sh('rm -r many', 60);
});
