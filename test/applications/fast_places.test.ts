/**
 * Whether a path leads to our mount at all: bind mounts, other mounts on top and below, other roots and namespaces, parents
 * that may not be searched, mounts that come and go. Programs by the fast path must see what programs by FUSE see.
 * (test/conformance/cases/places.cpp asks the same of one process that changes such things itself.)
 */
import { applicationTest, type Needs } from './place.ts';
import { tail } from './shell.ts';

const needs: Needs = { programs: ['unshare', 'chroot', 'setpriv', 'busybox'], root: true, only: 'memory' };

/**
 * $M is the mount, $M/d the working directory; $O is a directory elsewhere. Every `bind`, `cover` is undone at the end.
 * `show FILE...`: a line about each, by bash itself and by a program.
 */
const prologue = `
  M=$(dirname "$PWD"); O=$(mktemp -d "$OUTSIDE/o.XXXXXX"); chmod 755 "$O"; made=()
  undo() { cd /; for ((i = \${#made[@]} - 1; i >= 0; i--)); do umount -l "\${made[i]}" || true; done; }
  trap undo EXIT
  bind() { mount --bind "$1" "$2"; made+=("$(realpath "$2")"); }
  cover() { mount -t tmpfs none "$1"; made+=("$(realpath "$1")"); }
  back() { cd /; umount "\${made[-1]}"; unset 'made[-1]'; }
  show() { for f in "$@"; do echo "\${f##*/}: $( (echo "$(<"$f")") 2>&1 | sed 's/.*: //') | $(cat "$f" 2>&1 | sed 's/.*: //') | $(stat -c %s "$f" 2>&1 | sed 's/.*: //')"; done; }
  try() { "$@" 2>&1 | sed 's/.*: //' || true; }
  rm -rf ./*; echo ours >f; mkdir sub; echo below >sub/g; show f "$M/d/f"
`;

const scripts: Record<string, string> = {
  'a bind mount of a directory': `
    mkdir $O/b; bind $M/d $O/b; show $O/b/f; echo written >$O/b/new; show new $M/d/new; echo more >>new; show $O/b/new; mv $O/b/new $O/b/sub/; show sub/new
     try mv $O/b/sub/new ./moved; ln $M/d/f l; try ln $O/b/f $M/d/l2; cd $O/b; show f ../b/f sub/../f; rm -r sub; ls $M/d`,
  'a read-only bind mount': `
    mkdir $O/b; bind $M/d $O/b; mount -o remount,bind,ro $O/b; show $O/b/f; try touch $O/b/f; try bash -c "echo x >$O/b/f"; try rm $O/b/f; try mkdir $O/b/new; try chmod 600 $O/b/f; echo longer >f; show $O/b/f; cd $O/b; try rm f; try bash -c 'echo y >>f'; show f`,
  'another mount on a directory of ours': `
    cover sub; try cat sub/g; echo above >sub/g; show sub/g $M/d/sub/g; ls sub; ln -s ../d/sub/g link; show link; mkdir sub/dir; echo x >sub/dir/y; show $M/d/sub/dir/y sub/dir/../g; try mv f sub/f; show sub/f; try rmdir sub; cd /; back; cd $M/d; show sub/g link; ls`,
  'another mount on ours': `
    cover $M; try cat $M/d/f; mkdir $M/d; echo tmpfs >$M/d/f; show $M/d/f f; cd $M/d; show f; back; show $M/d/f; cd $M/d; show f`,
  'another root': `
    mkdir -p $O/root/bin $O/root$M/d; cp /bin/busybox $O/root/bin; echo inside >$O/root$M/d/f; chroot $O/root /bin/busybox cat $M/d/f; show $M/d/f
     python3 - $O/root $M/d/f <<'END'
import os, sys
root, f = sys.argv[1:]; print(open(f).read(), end=''); fd = os.open(f, os.O_RDWR); os.chroot(root); print(open(f).read(), open('f').read(), os.read(fd, 9), os.path.exists('/bin/busybox')); open(f, 'w').write('changed'); os.write(fd, b'more'); os.chdir('/'); print(os.path.exists('f'), os.stat(f).st_size)
END
     show f; cat $O/root$M/d/f`,
  'another mount namespace': `
    unshare -m bash -c 'cd '$M'/d; cat f '$M'/d/f; echo there >n; mount --bind sub '$M'; cat '$M'/g; cat f; umount '$M'; cat '$M'/d/n; mount -t tmpfs none '$M'/d; ls '$M'/d; echo t >'$M'/d/only-here; cd '$M'/d; ls'; show n; ls; unshare -m --propagation unchanged cat $M/d/f`,
  'a parent that may not be searched': `
    chmod 755 $M .; mkdir -p $O/priv/m; bind $M $O/priv/m; chmod 700 $O/priv; as() { setpriv --reuid 2001 --regid 2001 --clear-groups -- "$@" 2>&1 | sed 's/.*: //' || true; }; as cat $O/priv/m/d/f; as cat $M/d/f; as cat f; mkdir -m 700 closed; echo c >closed/c; as cat closed/c; as cat $M/d/closed/c; cd closed; as cat c || true; as cat ../f; cd $O/priv/m/d; as cat f; as cat $PWD/f; as bash -c 'echo x >f'; mkdir -m 777 open; as bash -c "echo mine >open/o; stat -c %u open/o"`,
  'paths through symbolic links': `
    ln -s $M/d $O/in; ln -s $O out; echo outside >$O/o; show $O/in/f out/o $M/d/out/o $O/in/out/in/f; ln -s /proc/self/cwd c; show c/f; ln -s ../../../../../../../../$M/d/f up; show up; ln -s $M/d/f abs; show abs $O/in/abs; rm $O/in/abs; ls; try cat out/in/sub; echo new >$O/in/out/in/new; show new; ln -s loop loop; try cat loop; cd $O/in/sub; show ../f $O/in/sub/../f; cd -P ..; show f`,
  'a mount on a bind mount, that goes again': `
    mkdir $O/there; exec 5<>f; bind $M $O/there; echo 1 >&5; show $O/there/d/f; bind $O/there/d/sub $O/there; show $O/there/g; back; show $O/there/d/f; echo 2 >&5; exec 5>&-; show f`,
};

for (const [title, script] of Object.entries(scripts)) {
  applicationTest(`under poly run: ${title}`, needs, async (t, place) => {
    const fuse = await place.runBoth(prologue + script);
    t.is(fuse.status, 0, tail(fuse.output));
    const fast = await place.runFast(prologue + script);
    t.is(fast.output, fuse.output);
    t.is(fast.status, 0, tail(fast.output));
    t.log(fast.counts);
    t.true(fast.counts.served > 0);
  });
}
