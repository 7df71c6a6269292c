/** Several users on one mount: what each may do must be what the kernel's own filesystem lets them do. */
import { applicationTest, type Needs } from './place.ts';

const needs: Needs = { programs: ['setpriv', 'setfacl'], root: true };

/** alice and bob share group 3000; carol does not. No accounts are needed. */
const prologue = `
  alice() { setpriv --reuid 2001 --regid 2001 --groups 3000 -- sh -c "$1" 2>&1 || echo "alice: status $?"; }
  bob() { setpriv --reuid 2002 --regid 2002 --groups 3000 -- sh -c "$1" 2>&1 || echo "bob: status $?"; }
  carol() { setpriv --reuid 2003 --regid 2003 --clear-groups -- sh -c "$1" 2>&1 || echo "carol: status $?"; }
  list() { find . -printf '%P %y %m %U %G\\n' | sort; }
  umask 022
`;

const scripts: Record<string, string> = {
  'owner, group, others': `
    chmod 755 . && mkdir home && chown 2001:2001 home && chmod 755 home
    alice 'echo secret >home/mine && chmod 600 home/mine && echo shared >home/ours && chgrp 3000 home/ours && chmod 640 home/ours'
    for who in alice bob carol; do $who 'cat home/mine'; $who 'cat home/ours'; $who 'echo x >>home/ours'; $who 'rm -f home/mine.'; done
    bob 'rm -f home/ours'; bob 'chmod 777 home/mine'; bob 'mv home/mine home/yours'; bob 'ln home/mine home/two'; list`,
  'sticky directories': `
    mkdir tmp && chmod 1777 tmp
    alice 'echo a >tmp/a; mkdir tmp/da'; bob 'echo b >tmp/b'
    bob 'rm -f tmp/a'; bob 'mv tmp/a tmp/c'; bob 'rmdir tmp/da'; alice 'mv tmp/a tmp/b'; alice 'mv tmp/a tmp/a2'; carol 'cat tmp/a2'
    carol 'echo more >>tmp/b'; list`,
  'setgid directories and umask': `
    mkdir team && chgrp 3000 team && chmod 2775 team
    alice 'umask 002; echo a >team/a; mkdir team/sub; echo s >team/sub/s'; bob 'umask 077; echo b >team/b'
    bob 'echo more >>team/a'; bob 'echo more >>team/sub/s'; alice 'cat team/b'; carol 'echo no >team/c'; list`,
  'set-user-id bits go when a stranger writes': `
    chmod 777 . && printf x >tool && chown 2001:3000 tool && chmod 6777 tool
    bob 'echo y >>tool'; list; chmod 6755 tool; chown 2002:2002 tool; list
    alice 'touch own && chmod 2755 own && chgrp 3000 own'; list; alice 'chown 2002 own'; alice 'chgrp 2003 own'`,
  'access control lists': `
    chmod 755 . && echo x >f && chmod 600 f && setfacl -m u:2001:r f && mkdir d && setfacl -m d:u:2002:rwx,u:2002:rwx d
    for who in alice bob carol; do $who 'cat f'; $who 'echo w >>f'; $who 'touch d/new'; done
    bob 'touch d/of-bob; mkdir d/dd'; getfacl -pnR . | grep -v '^$'; setfacl -m m::r d; bob 'touch d/masked'`,
  'directories that cannot be searched or listed': `
    chmod 755 . && mkdir x r && echo in >x/f && echo in >r/f && chmod 711 x && chmod 744 r
    for who in alice carol; do $who 'ls x'; $who 'cat x/f'; $who 'ls r'; $who 'cat r/f'; done
    mkdir -p deep/a/b && echo d >deep/a/b/f && cat deep/a/b/f && chmod 700 deep/a; alice 'cat deep/a/b/f'; alice 'ls deep/a'`,
};

for (const [title, script] of Object.entries(scripts)) {
  applicationTest(`permissions: ${title}`, needs, async (t, place) => {
    await place.asOnPeer(t, prologue + script, 60);
  });
}

applicationTest('two users write the same file and directory at once', needs, async (t, place) => {
  const output = await place.sh(
    `${prologue}
    chmod 777 . && touch log && chmod 666 log
    alice 'for i in $(seq 300); do echo "alice $i" >>log; echo >a$i; done' & bob 'for i in $(seq 300); do echo "bob $i" >>log; echo >b$i; done' &
    wait
    wc -l <log; sort log | uniq | wc -l; find . -user 2001 -name 'a*' | wc -l; find . -user 2002 -name 'b*' | wc -l`,
    60,
  );
  t.is(output, '600\n600\n300\n300\n');
});
