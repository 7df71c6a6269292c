/**
 * Open files that go from hand to hand: programs with the preload library, static ones, and ones without it write and read
 * through the same descriptors. There is one offset, whoever uses it.
 */
import type { ExecutionContext } from 'ava';
import { applicationTest, full, type Place } from './place.ts';
import { tail } from './shell.ts';

/** Ways to write the line $1 to standard output. */
const writers: Record<string, string> = {
  builtin: 'echo "$1"',
  program: '/bin/echo "$1"',
  static: 'busybox echo "$1"',
  bare: 'env -u LD_PRELOAD /bin/echo "$1"',
  printf: `printf '%s\\n' "$1"`,
  here: 'cat <<<"$1"',
  dd: 'echo "$1" | dd status=none',
  python: `python3 -c 'import sys; print(sys.argv[1])' "$1"`,
  os: `python3 -c 'import os, sys; os.write(1, sys.argv[1].encode() + b"\\n")' "$1"`,
  child: `python3 -c 'import os, sys; os.fork() or os._exit(os.write(1, sys.argv[1].encode() + b"\\n") * 0); os.wait()' "$1"`,
  subshell: '(echo "$1")',
  background: '{ echo "$1" & wait; }',
  script: `bash -c 'echo "$0"' "$1"`,
  perl: `perl -e 'syswrite STDOUT, "$ARGV[0]\\n"' "$1"`,
  spawned: `python3 -c 'import os, sys; os.waitpid(os.posix_spawn("/bin/busybox", ["busybox", "echo", sys.argv[1]], os.environ), 0)' "$1"`,
  sed: 'sed -n p <<<"$1"',
  split: `python3 -c 'import os, sys; a = sys.argv[1]; os.write(1, a[:2].encode()); os.system("busybox printf %s " + a[2:]); os.write(1, b"\\n")' "$1"`,
};
const functions = Object.entries(writers).map(([name, body]) => `w_${name}() { ${body}; }`);

/** Ways to send a group of commands to file f. */
const redirections = [
  (commands: string) => `(${commands}) >f`,
  (commands: string) => `{ ${commands}; } >f 2>&1`,
  (commands: string) => `: >f; (${commands}) >>f`,
  (commands: string) => `exec 9>f; { ${commands}; } >&9; exec 9>&-`,
  (commands: string) => `bash -c '. ./functions; ${commands}' >f`,
  (commands: string) => `exec 8<>f; (exec >&8 8>&-; ${commands}); exec 8>&-`,
];

/** Xorshift, so that a run can be repeated: POLY_SEED. */
function random(t: ExecutionContext): (below: number) => number {
  let state = Number(process.env['POLY_SEED'] ?? Math.floor(Math.random() * 2 ** 31)) || 1;
  t.log(`seed ${String(state)}`);
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

applicationTest(
  'under poly run: any mix of writers stays in order',
  { programs: ['busybox', 'python3', 'perl'], minutes: 5, only: 'memory' },
  async (t, place) => {
    const pick = random(t);
    const names = Object.keys(writers);
    const script = [`cat >functions <<'END'`, ...functions, 'END', '. ./functions'];
    for (let round = 0; round < (full ? 100 : 12); round++) {
      const lines = Array.from({ length: 2 + pick(5) }, (_, i) => ({
        text: `r${String(round)}line${String(i)}`,
        writer: names[pick(names.length)] ?? '',
      }));
      const commands = lines.map(({ writer, text }) => `w_${writer} ${text}`).join('; ');
      const redirect = redirections[pick(redirections.length)];
      script.push(`rm -f f; ${redirect?.(commands) ?? ''}`);
      const wanted = lines.map(({ text }) => text).join(' ');
      script.push(
        `[ "$(tr '\\n' ' ' <f)" = '${wanted} ' ] || { echo ${JSON.stringify(commands.replaceAll("'", ''))}; cat f; exit 1; }`,
      );
    }
    const outcome = await place.runFast(script.join('\n'), 240);
    t.is(outcome.status, 0, tail(outcome.output));
    t.true((outcome.counts.declines['promoted'] ?? 0) > 0);
  },
);

async function python(place: Place, program: string): Promise<string> {
  return place.shFast(
    `cat >"$OUTSIDE/program.py" <<'END'\n${program}\nEND\npython3 "$OUTSIDE/program.py"`,
    60,
  );
}

/** `without(code)` runs Python code in a process without the library; its output. */
const prologue = `
import array, ctypes, fcntl, mmap, os, select, socket, subprocess, sys
bare = {k: v for k, v in os.environ.items() if k != 'LD_PRELOAD'}
def without(code, **more): return subprocess.run([sys.executable, '-c', 'import os, sys, mmap, socket\\n' + code], env=bare, stdout=subprocess.PIPE, check=True, text=True, **more).stdout.strip()
libc = ctypes.CDLL(None, use_errno=True)
with open('/proc/self/maps') as maps: assert 'libpoly-preload' in maps.read()
`;

applicationTest(
  'under poly run: descriptors sent over a socket',
  { programs: ['python3'] },
  async (t, place) => {
    const out = await python(
      place,
      `${prologue}
fd = os.open('f', os.O_RDWR | os.O_CREAT); os.write(fd, b'one ')
ours, theirs = socket.socketpair()
child = subprocess.Popen([sys.executable, '-c', '''
import os, socket
s = socket.socket(fileno=0); data, fds, _, _ = socket.recv_fds(s, 10, 4)
os.write(fds[0], b"two "); print(len(fds), os.lseek(fds[0], 0, os.SEEK_CUR)); os.fsync(fds[0]); s.send(b"x"); s.recv(1); os.write(fds[0], b"four ")
'''], env=bare, stdin=theirs, stdout=subprocess.PIPE, text=True)
socket.send_fds(ours, [b'x'], [fd]); ours.recv(1); os.write(fd, b'three '); ours.send(b'x'); print(child.communicate()[0].strip())
print(os.pread(fd, 100, 0), os.lseek(fd, 0, os.SEEK_CUR)); a, b = socket.socketpair()
# To ourselves, and the sender's number closed before it is received.
g = os.open('g', os.O_RDWR | os.O_CREAT); os.write(g, b'abc'); socket.send_fds(a, [b'y'], [g]); os.close(g)
[h] = socket.recv_fds(b, 10, 1)[1]; os.write(h, b'def'); print(os.pread(h, 10, 0), without('print(open("g").read())'))`,
    );
    t.is(out, `1 8\nb'one two three four ' 19\nb'abcdef' abcdef\n`);
  },
);

applicationTest(
  'under poly run: shared mappings, sendfile, splice, stdio and raw calls on one open file',
  { programs: ['python3'] },
  async (t, place) => {
    const out = await python(
      place,
      `${prologue}
fd = os.open('m', os.O_RDWR | os.O_CREAT); os.write(fd, b'.' * 8192)
m = mmap.mmap(fd, 8192); m[0:5] = b'store'; m.flush(); print(os.pread(fd, 6, 0), without('print(open("m").read(6))'))
os.pwrite(fd, b'written', 4096); print(m[4096:4103]); other = os.open('m', os.O_RDWR); os.pwrite(other, b'OTHER', 100); print(m[100:105])
without('fd = os.open("m", os.O_RDWR); os.pwrite(fd, b"bare", 200)'); print(m[200:204], os.pread(other, 4, 200)); os.ftruncate(other, 16384); print(os.fstat(fd).st_size); m.close()
r, w = os.pipe(); os.lseek(other, 0, 0); print(os.splice(other, w, 5), os.read(r, 10), os.sendfile(w, other, None, 3), os.read(r, 10), os.lseek(other, 0, 1))
n = os.open('n', os.O_RDWR | os.O_CREAT); print(os.sendfile(n, other, 0, 5), os.copy_file_range(other, n, 5, 100), os.pread(n, 20, 0))
f = os.fdopen(os.open('s', os.O_RDWR | os.O_CREAT), 'r+'); f.write('python '); f.flush()
libc.fdopen.restype = ctypes.c_void_p; c = libc.fdopen(f.fileno(), b'r+'); libc.fputs(b'stdio ', ctypes.c_void_p(c)); libc.fflush(ctypes.c_void_p(c))
libc.dprintf(f.fileno(), b'%s ', b'dprintf'); libc.syscall(1, f.fileno(), b'raw ', 4); print(os.lseek(f.fileno(), 0, 1), open('s').read())
p = select.poll(); p.register(os.open('s', os.O_RDONLY), select.POLLIN); print([e for _, e in p.poll(0)]); print(os.isatty(n), os.fstat(n).st_size)
before = os.open('d', os.O_RDWR | os.O_CREAT); os.write(before, b'12345'); again = os.dup2(before, 40); os.lseek(40, 1, 0); print(os.read(before, 2), os.lseek(40, 0, 1)); os.dup2(before, 0); print(subprocess.check_output(['cat']), os.lseek(before, 0, 1))
print(os.read(os.open('/proc/self/fd/%d' % before, os.O_RDONLY), 3))`,
    );
    t.is(
      out,
      [
        `b'store.' store.`,
        `b'written'`,
        `b'OTHER'`,
        `b'bare' b'bare'`,
        '16384',
        `5 b'store' 3 b'...' 8`,
        `5 5 b'storeOTHER'`,
        '25 python stdio dprintf raw ',
        '[1]',
        'False 10',
        `b'23' 3`,
        `b'45' 5`,
        `b'123'`,
        '',
      ].join('\n'),
    );
  },
);

applicationTest(
  'under poly run: who holds a lock, with the library and without',
  { programs: ['python3', 'flock'] },
  async (t, place) => {
    const out = await python(
      place,
      `${prologue}
fd = os.open('f', os.O_RDWR | os.O_CREAT); fcntl.lockf(fd, fcntl.LOCK_EX)
attempt = 'import fcntl\\nfd = os.open("f", os.O_RDWR)\\ntry: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); print("free")\\nexcept OSError: print("held")'
inside = lambda: subprocess.check_output([sys.executable, '-c', 'import os\\n' + attempt], text=True).strip()
print(without(attempt), inside()); other = os.open('f', os.O_RDONLY); print(without(attempt)); os.close(other); print(without(attempt), inside())
fcntl.flock(fd, fcntl.LOCK_EX); print(subprocess.run(['flock', '-n', 'f', 'true']).returncode, subprocess.run(['flock', '-n', 'f', 'true'], env=bare).returncode); dup = os.dup(fd); os.close(fd); print(subprocess.run(['flock', '-n', 'f', 'true'], env=bare).returncode); os.close(dup)
print(subprocess.run(['flock', '-n', 'f', 'true']).returncode)`,
    );
    t.is(out, 'held held\nheld\nfree free\n1 1\n1\n0\n');
  },
);
