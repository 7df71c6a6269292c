/**
 * What the table of programs under `poly run` runs (fast_table.test.ts). Each script says the same, and leaves the same
 * tree, on every filesystem; what it cannot help (times, random salts) it leaves out, or `unlike` names the files.
 */
export interface Program {
  name: string;
  /** What must be installed. */
  programs: string[];
  script: string;
  /** For find's -path: files whose contents (not names) differ from run to run. */
  unlike?: string[];
  /** For find's -path: left out altogether. */
  without?: string[];
  size?: string;
}

/** Text and random-looking data, the same every time. */
const data = `
  bytes() { openssl enc -aes-128-ctr -nosalt -K $(printf %032d "$1") -iv $(printf %032d 0) </dev/zero 2>/dev/null | head -c "$2" || true; }
`;

const bash = `${data}
  mkdir -p d/e; echo one >f; echo two >>f; cat <f; >empty
  cat <<END >here
here-document $((6 * 7))
END
  cat here; cat <<<'here-string'
  { echo a; echo b >&2; } >out 2>err; cat out err; { echo both; ls nothing-there; } >both 2>&1 || true; cat both
  exec 5<>rw; echo line1 >&5; echo line2 >&5; exec 5>&-; exec 6<rw; read -r x <&6; read -r y <&6; exec 6<&-; echo "$x $y"
  seq 1000 | sort -rn | head -n 3 >sorted || true; cat sorted; seq 5 | tee t1 t2 >/dev/null; cmp t1 t2
  (echo sub; exit 3) >sub || echo "status $?"; cat sub
  for i in 1 2 3 4 5; do (for n in $(seq 50); do echo "job $i line $n"; done >>jobs) & done; wait; sort jobs | md5sum
  while read -r line; do echo "[$line]"; done <t1; mapfile -t lines <t2; echo "\${#lines[@]} \${lines[4]}"
  echo "$(<f)"; diff <(sort t1) <(sort t2) && echo same
  set -C; (echo no >f) 2>/dev/null || echo 'noclobber holds'; echo yes >|f; set +C; cat f
  for t in -e -f -d -s -r -w -x -L; do for n in f d empty missing; do [ $t $n ] && printf '%s %s; ' $t $n; done; done; echo
  cd d; echo up >../up; cd e; echo upup >../../upup; pwd | tail -c 5; cd ../..; [ f -nt up ] || echo older; shopt -s globstar; echo **/*
  umask 077; echo x >private; umask 022; printf '#!/bin/bash\\necho script "$@" from "$0"; cat\\n' >script; chmod +x script; ./script 1 2 <f
  exec 7>fd7; echo seven >&7; bash -c 'echo child >&7'; busybox echo static >&7; echo last >&7; exec 7>&-; cat fd7
  { echo head; cat f; echo tail; } | cat >piped; cat piped; yes | head -n 100000 >big || true; wc -c <big; bytes 1 300000 >random; md5sum <random`;

const coreutils = `${data}
  mkdir src; cd src; for d in a b c; do mkdir -p $d/sub; for i in 1 2 3 4 5; do bytes $i$((i * 7)) $((i * 5000)) >$d/f$i; echo "$d $i" >$d/sub/t$i; done; done
  ln -s a/f1 link; ln -s nowhere dangling; ln a/f2 hard; mkfifo fifo; chmod 4711 a/f3; chmod 1777 b; chmod 640 c/f1; touch -d 2001-02-03T04:05:06 a/f1 b/sub
  cd ..; cp -a src copy; (diff -r --no-dereference src copy 2>&1 || true) | sort; cp -r --preserve=links,mode --no-dereference src/c c2; mv copy/a moved; mv -T moved copy/a; mv copy/b/f1 .; mv -n f1 copy/b/
  LC_ALL=C ls -lR --time-style=+ src | sed 's/  */ /g; /^total/d' | awk '{ if ($1 ~ /^d/) $5 = ""; print }'; ls -1U src/a | sort | tr '\\n' ' '; ls -A copy
  sort -n <(seq 500 -1 1) -o sorted; sort -o sorted sorted; tail -n 2 sorted; seq 20000 | sort -R --random-source=src/a/f5 -S 100k -T . | md5sum
  dd if=src/c/f5 of=dd bs=1000 count=7 skip=2 seek=3 2>/dev/null; dd if=src/a/f4 of=dd bs=512 conv=notrunc,fsync oflag=append 2>/dev/null; dd if=/dev/zero of=sparse bs=1 count=1 seek=1000000 2>/dev/null; md5sum dd sparse
  install -D -m 751 src/a/f1 inst/x/y/prog; install -d -m 2750 inst/dir; split -b 3000 -d src/b/f5 part-; cat part-* | cmp - src/b/f5; csplit -s -z sorted 100 200 300; wc -l xx*
  du -a --apparent-size src/a/sub | cut -f 2 | sort; find src -type f -size +10k -newermt 2000-01-01 | sort; find . -links 2 -type f | sort; find src -name 't*' -delete; find src -type f | wc -l
  stat -c '%n %F %a %s %h %N' src/* | sed 's/directory 755 [0-9]*/directory/; s/directory 1777 [0-9]*/directory/'; stat -c '%n %Y' src/a/f1 copy/a/f1; readlink src/link; realpath --relative-to=. src/link
  truncate -s 12345 trunc; truncate -s -345 trunc; truncate -s +5 trunc; stat -c %s trunc; head -c 100 trunc | tr '\\0' 0 | md5sum; tac sorted | head -n 2 || true; shuf -i 1-100 --random-source=src/a/f5 >shuf; paste sorted shuf | md5sum; comm -12 sorted <(sort shuf) | wc -l
  od -An -tx1 -N 16 src/a/f1; tail -c 50 src/b/f3 | md5sum; wc src/a/f?; cksum src/c/*1; sha256sum src/a/f? >sums; sha256sum -c sums; touch -r src/a/f1 ref; touch -m -d @5 m; stat -c %Y ref m; touch -c absent; ls absent 2>&1 || true
  mkdir -p rm/a/b/c; touch rm/a/b/c/f rm/a/g; rm rm 2>&1 || true; rm -r rm; rmdir inst/dir; ln -sf f2 copy/link; ln -f src/a/f1 copy/hard2; link src/a/f1 l2; unlink l2; cp --reflink=auto --sparse=always sparse s2; cmp sparse s2; cp -u src/a/f1 s2; cp -b src/a/f2 s2; ls; sync -d s2; shred -u -n 1 s2; test ! -e s2; chmod -R go-w copy; chown -R 0:0 copy 2>/dev/null; rm -rf src/b src/a`;

const tar = `${data}
  mkdir -p tree/deep/er; for i in $(seq 40); do bytes $i $((i * 997)) >tree/f$i; echo $i >tree/deep/er/n$i; done; ln -s ../f1 tree/deep/link; ln tree/f2 tree/deep/hard; chmod 600 tree/f3; chmod 2755 tree/deep; touch -d @1000000000 tree/f*; truncate -s 5m tree/sparse; printf end >>tree/sparse
  tar --sort=name --mtime=@1000000000 --owner=0 --group=0 --numeric-owner -cf a.tar tree; md5sum a.tar; tar -tf a.tar | wc -l; mkdir x; tar -C x -xpf a.tar; tar -C x -df a.tar; diff -r --no-dereference tree x/tree
  tar --sort=name --mtime=@1000000000 -czf - tree | tar -tzf - | md5sum; tar -rf a.tar --mtime=@1000000001 tree/f1; tar -tf a.tar | tail -n 1; tar -Scf s.tar tree/sparse; mkdir y; tar -C y -xSf s.tar; cmp tree/sparse y/tree/sparse; stat -c %s y/tree/sparse
  tar -cf - -C tree . | (mkdir z && tar -C z -xf -); diff -r --no-dereference tree z; tar -xOf a.tar tree/f7 | cmp - tree/f7; rm -r x/tree/deep; tar -C x -xf a.tar --keep-old-files 2>/dev/null || echo 'old files kept'; ls -R x | wc -l; stat -c '%a %h %Y' x/tree/f2 x/tree/f3`;

const git = `${data}
  export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null HOME=$PWD
  git init -q -b main r; cd r; git config user.name A; git config user.email a@b.c; git config gc.auto 0; git config core.logAllRefUpdates true
  for i in $(seq 60); do mkdir -p dir$((i % 7)); bytes $i $((i * 300)) >dir$((i % 7))/f$i; done; git add .; git commit -q -m first; git rev-parse HEAD
  for i in 1 2 3 4 5; do echo "change $i" >>dir1/f1; git mv dir$i/f$i dir$i/g$i; git commit -qam "change $i"; done; git log --oneline | md5sum; git status --porcelain
  git checkout -q -b other HEAD~3; echo other >new; git add new; git commit -qm other; git checkout -q main; git merge -q --no-edit other; git diff --stat HEAD~1 | tail -n 1; git stash list; echo dirty >>dir2/g2; git stash -q; git stash pop -q; git diff --shortstat; git checkout -q -- .
  git gc -q --prune=now; git fsck --full 2>&1; git count-objects -v | grep -E '^(count|packs|in-pack)'; git tag v1; git clone -q . ../c; cd ../c; git fsck; git rev-parse HEAD; git log --format=%H | md5sum; cd ..; git clone -q --bare r b.git; git -C c pull -q; git -C r rm -rq dir3; git -C r commit -qm 'less'; git -C c pull -q; git -C c ls-files | md5sum; git -C r worktree add -q ../w v1; git -C w status --porcelain; git -C r reset -q --hard v1; git -C r clean -fdxq; git -C r grep -c change`;

const gcc = `
  mkdir inc src; echo 'int add(int, int); int mul(int, int); const char *name(void);' >inc/lib.h
  for i in $(seq 6); do printf '#include "lib.h"\\nint f%d(int x) { return add(mul(x, %d), %d); }\\n' $i $i $i >src/f$i.c; done
  printf '#include "lib.h"\\nint add(int a, int b) { return a + b; }\\nint mul(int a, int b) { return a * b; }\\nconst char *name(void) { return "poly"; }\\n' >src/lib.c
  printf '#include <stdio.h>\\n#include "lib.h"\\nint f3(int); int f6(int);\\nint main(void) { printf("%%s %%d %%d\\\\n", name(), f3(5), f6(7)); return 0; }\\n' >src/main.c
  printf '%s\\n' 'OBJS := $(patsubst src/%.c,obj/%.o,$(wildcard src/f*.c))' 'prog: obj/main.o libx.a libs.so' $'\\t$(CC) -o $@ obj/main.o -L. -lx -ls -Wl,-rpath,\\$$ORIGIN' 'libx.a: $(OBJS)' $'\\tar rcsD $@ $^' 'libs.so: obj/lib.o' $'\\t$(CC) -shared -o $@ $^' 'obj/%.o: src/%.c inc/lib.h | obj' $'\\t$(CC) -O1 -fPIC -Iinc -MMD -c -o $@ $<' 'obj:' $'\\tmkdir -p obj' '-include $(wildcard obj/*.d)' >Makefile
  make -s -j2; ./prog; make -q && echo 'up to date'; sleep 0.02; touch src/f3.c; make -n | grep -c ' -c '; make -s; ./prog; sleep 0.02; echo '// changed' >>inc/lib.h; make -n | grep -c ' -c '; make -s -j3; ./prog; nm libx.a | grep -c ' T '; size -G libs.so | wc -l; strip -o small prog; ./small; objdump -d libs.so | grep -c 'ret'; ldd ./prog | grep -c libs.so; rm -r obj; make -s obj/f1.o; ls obj`;

const python = `
cat >t.py <<'END'
import fcntl, hashlib, json, mmap, os, pathlib, shutil, sqlite3, struct, subprocess, sys, tempfile, threading, zipfile
p = pathlib.Path('work'); (p / 'a/b').mkdir(parents=True)
(p / 'text').write_text('héllo\\nworld\\n'); (p / 'bin').write_bytes(bytes(range(256)) * 300)
print((p / 'text').read_text(), hashlib.md5((p / 'bin').read_bytes()).hexdigest(), (p / 'bin').stat().st_size)
(p / 'text').rename(p / 'a/t2'); (p / 'l').symlink_to('a/t2'); print((p / 'l').resolve().name, (p / 'l').is_symlink(), sorted(str(x) for x in p.rglob('*')))
with open(p / 'rw', 'w+b') as f:
    f.write(b'x' * 10000); f.seek(100); f.write(b'mid'); f.seek(98); print(f.read(7)); f.truncate(5000); print(f.seek(0, 2))
with open(p / 'lines', 'w') as f: f.writelines(f'line {i}\\n' for i in range(3000))
with open(p / 'lines') as f: print(sum(len(l) for l in f), f.tell())
shutil.copytree(p, 'copy', symlinks=True); shutil.copy2(p / 'bin', 'bin2'); shutil.move('copy/a', 'moved'); print(shutil.disk_usage('.').total > 0, sorted(os.listdir('copy')), sorted(os.listdir('moved')))
with open('m', 'w+b') as f:
    f.write(b'\\0' * 8192); f.flush()
    with mmap.mmap(f.fileno(), 0) as m: m[10:15] = b'hello'; m[5000] = 65; m.flush(); print(m.find(b'hello'))
    f.seek(8); print(f.read(10)); os.pwrite(f.fileno(), b'PW', 20); print(os.pread(f.fileno(), 4, 19))
with tempfile.NamedTemporaryFile(dir='.') as t: t.write(b'abc'); t.flush(); print(os.path.getsize(t.name), open(t.name).read())
with tempfile.TemporaryFile(dir='.') as t: t.write(b'q' * 100000); t.seek(0); print(len(t.read()))
with tempfile.TemporaryDirectory(dir='.') as d: pathlib.Path(d, 'x').touch(); print(os.listdir(d))
with open('sub', 'w') as f:
    f.write('parent\\n'); f.flush(); subprocess.run(['echo', 'child'], stdout=f, check=True); subprocess.run(['busybox', 'echo', 'static'], stdout=f, check=True); f.seek(0, 2); f.write('parent again\\n')
print(open('sub').read(), subprocess.run(['cat'], stdin=open('sub'), capture_output=True, text=True).stdout == open('sub').read(), subprocess.check_output('wc -l <sub', shell=True).strip())
def work(n):
    with open('shared%d' % n, 'wb') as f:
        for i in range(200): f.write(struct.pack('<I', i * n))
    with lock: total.append(sum(struct.unpack('<200I', open('shared%d' % n, 'rb').read())))
lock, total = threading.Lock(), []; ts = [threading.Thread(target=work, args=(n,)) for n in range(8)]; [t.start() for t in ts]; [t.join() for t in ts]; print(sorted(total))
fd = os.open('log', os.O_WRONLY | os.O_CREAT | os.O_APPEND); ts = [threading.Thread(target=lambda n: [os.write(fd, b'%04d\\n' % (n * 100 + i)) for i in range(100)], args=(n,)) for n in range(4)]
[t.start() for t in ts]; [t.join() for t in ts]; print(len(set(open('log').read().split())), os.fstat(fd).st_size)
if os.fork() == 0: os.write(fd, b'forked\\n'); os._exit(0)
os.wait(); os.write(fd, b'after\\n'); print(open('log').read()[-13:]); fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); os.close(fd)
fd = os.open('v', os.O_RDWR | os.O_CREAT); print(os.writev(fd, [b'one', b'two', b'three']), os.preadv(fd, [a := bytearray(4), b := bytearray(7)], 1), a, b, os.sendfile(os.open('sf', os.O_WRONLY | os.O_CREAT), fd, 2, 8), os.copy_file_range(fd, os.open('cfr', os.O_WRONLY | os.O_CREAT), 6, 3), open('sf').read(), open('cfr').read())
os.truncate('v', 4); os.posix_fallocate(fd, 0, 100); print(os.fstat(fd).st_size); os.fsync(fd); os.utime('v', ns=(1, 2)); print(os.stat('v').st_mtime_ns, os.access('v', os.W_OK), oct(os.stat('v').st_mode)); os.chmod('v', 0o604); os.setxattr('v', 'user.k', b'val'); print(os.getxattr('v', 'user.k'), os.listxattr('v'))
with zipfile.ZipFile('z.zip', 'w', zipfile.ZIP_DEFLATED) as z: z.write('work/bin'); z.writestr(zipfile.ZipInfo('s'), 'text')
with zipfile.ZipFile('z.zip') as z: print(z.testzip(), [i.file_size for i in z.infolist()]); z.extractall('unz')
print(sorted(e.name + ('/' if e.is_dir() else '') for e in os.scandir('.')), [sorted(f) for _, _, f in os.walk('work')])
for bad in ('nothing/x', 'v/x', 'work', ''):
    try: open(bad, 'w')
    except OSError as e: print(bad, e.strerror)
shutil.rmtree('copy'); os.replace('v', 'w'); os.link('w', 'w2'); print(os.stat('w').st_nlink, os.path.samefile('w', 'w2')); json.dump({'a': [1, 2]}, open('j', 'w')); print(json.load(open('j')))
c = sqlite3.connect('db'); c.execute('create table t(n)'); c.executemany('insert into t values (?)', [(i,) for i in range(500)]); c.commit(); print(c.execute('select sum(n) from t').fetchone()); c.close()
END
  python3 t.py; unset PYTHONDONTWRITEBYTECODE; mkdir pkg; echo 'x = 1' >pkg/__init__.py; echo 'from . import x; y = x + 1' >pkg/m.py; python3 -c 'import pkg.m; print(pkg.m.y)'; ls pkg/__pycache__ | wc -l; rm -r pkg/__pycache__; python3 -m venv --without-pip env; env/bin/python -c 'import sys; print(sys.prefix.endswith("env"))'; rm -r env`;

const sqlite = `
  for mode in delete wal; do
    sqlite3 $mode.db "PRAGMA journal_mode=$mode; CREATE TABLE t(w, n, PRIMARY KEY(w, n));" >/dev/null
    for w in 1 2; do (for n in $(seq 40); do echo "BEGIN IMMEDIATE; INSERT INTO t VALUES($w, $n); COMMIT;"; done | sqlite3 -bail -cmd '.timeout 60000' $mode.db) & pids[$w]=$!; done; for w in 1 2; do wait \${pids[$w]}; done
    sqlite3 $mode.db "PRAGMA integrity_check; SELECT count(*), sum(n) FROM t; BEGIN; DELETE FROM t; ROLLBACK; SELECT count(*) FROM t;" ".backup $mode.bak" ; sqlite3 $mode.bak 'SELECT count(*) FROM t; DROP TABLE t; VACUUM; PRAGMA integrity_check;'
    sqlite3 $mode.db "CREATE TABLE b(x INTEGER PRIMARY KEY, y); WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 3000) INSERT INTO b SELECT x, hex(x * 7) || printf('%0200d', x) FROM c; CREATE INDEX i ON b(y); DELETE FROM b WHERE x % 3 = 0; VACUUM; PRAGMA integrity_check; SELECT count(*), sum(length(y)) FROM b;" ".dump b" | md5sum
  done; ls`;

const dbBench = `
  db_bench --db=db --benchmarks=fillseq,readrandom,overwrite,readseq,compact,readrandom --num=8000 --reads=4000 --value_size=150 --threads=2 --write_buffer_size=524288 --target_file_size_base=262144 --compression_type=none --verify_checksum=1 --seed=7 2>&1 | grep -oE '^[a-z]+ +:|[Cc]orrupt|[Ee]rror' | grep -v '^$'
  ldb --db=db checkconsistency; ldb --db=db scan | wc -l; ldb --db=db put key value; ldb --db=db get key; sst_dump --file=db --command=verify 2>&1 | grep -ciE 'corrupt|error' || true`;

const fio = `
  for job in 'psync --rw=randrw --bs=4k' 'libaio --rw=randwrite --bs=4k --direct=1 --iodepth=4' 'mmap --rw=randwrite --bs=4k' 'pvsync --rw=randwrite --bsrange=512-32k --bs_unaligned=1' 'psync --rw=randwrite --bs=4k --numjobs=2 --thread'; do
    fio --name="j\${job//[^a-z0-9]/}" --size=3m --ioengine=$job --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --randseed=4711 --group_reporting --directory=. >out 2>&1 && status=0 || status=$?
    echo "$job: $status $(grep -oE 'err= *[0-9]+' out | sort -u) $(grep -ciE 'verify: bad|verify failed' out || true)"
  done; rm out`;

export const programs: Program[] = [
  { name: 'bash', programs: ['busybox', 'openssl'], script: bash, unlike: ['./jobs'] },
  { name: 'coreutils', programs: ['openssl'], script: coreutils },
  { name: 'tar', programs: ['tar', 'openssl'], script: tar, unlike: ['./s.tar'] },
  {
    name: 'git',
    programs: ['git', 'openssl'],
    script: git,
    unlike: ['*/index', '*/logs/*', '*/config', '*/FETCH_HEAD', '*/gitdir', './w/.git', '*/packed-refs'],
    without: ['*/rr-cache*'],
  },
  { name: 'gcc, make', programs: ['gcc', 'make', 'strip'], script: gcc },
  { name: 'python3', programs: ['python3', 'busybox'], script: python, unlike: ['./log', './z.zip'] },
  { name: 'sqlite3', programs: ['sqlite3'], script: sqlite, unlike: ['./*.db', './*.bak'] },
  { name: 'db_bench', programs: ['db_bench', 'ldb'], script: dbBench, without: ['./db/*'] },
  { name: 'fio', programs: ['fio'], script: fio, unlike: ['*'] },
];
