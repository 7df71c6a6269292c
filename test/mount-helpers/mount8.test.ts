/**
 * mount(8) and umount(8) with our helpers and a real daemon. The helpers are laid over /usr/sbin in a mount namespace of
 * the test's own, while the daemon runs outside: so each test also shows that a mount lands in its caller's namespace.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import anyTest, { type ExecutionContext } from 'ava';
import type { MountInfo } from '../../server/protocol.ts';
import { type Ended, root, run, runPoly } from '../server/cli_harness.ts';
import { missing, realSite } from '../server/real.ts';

const prelude = `
set -u
mount -t tmpfs none "$STAGE" && mkdir "$STAGE/upper" "$STAGE/work" &&
  mount -t overlay -o "lowerdir=/usr/sbin,upperdir=$STAGE/upper,workdir=$STAGE/work" none /usr/sbin || exit 99
for name in mount.poly umount.poly mount.fuse.poly umount.fuse.poly; do
  ln -s "$LAUNCHER" "/usr/sbin/$name"
done
type_of() { awk -v path="$1" '$5 == path { print $(NF - 2) }' /proc/self/mountinfo | tail -n 1; }
flags_of() { awk -v path="$1" '$5 == path { print $6 }' /proc/self/mountinfo | tail -n 1; }
`;

function unavailable(): string | undefined {
  const why = missing();
  if (why !== undefined) return why;
  try {
    // /sbin must be /usr/sbin, and overlayfs must be there.
    const probe = `STAGE=/mnt LAUNCHER=/bin/true; [ /sbin -ef /usr/sbin ] || exit 1; ${prelude}`;
    execFileSync('unshare', ['--mount', '--propagation', 'private', 'bash', '-c', probe], {
      stdio: 'ignore',
    });
    return undefined;
  } catch {
    return 'needs unshare(1), overlayfs and a merged /usr';
  }
}

const why = unavailable();
const test = why === undefined ? anyTest.serial : anyTest.serial.skip;
if (why !== undefined)
  anyTest(`mount(8): skipped, ${why}`, (t) => {
    t.pass();
  });

interface Place {
  env: NodeJS.ProcessEnv;
  /** Two mount points. */
  a: string;
  b: string;
  /** A directory with a file "hello". */
  source: string;
  /** Runs a bash script with the helpers in place. */
  inside: (script: string, env?: NodeJS.ProcessEnv) => Promise<Ended>;
  ls: () => Promise<MountInfo[]>;
}

async function place(t: ExecutionContext): Promise<Place> {
  const { site, root: directory } = realSite(t);
  const [a = '', b = '', source = '', stage = ''] = ['a', 'b', 'source', 'stage'].map((name) =>
    join(directory, name),
  );
  for (const path of [a, b, source, stage]) mkdirSync(path);
  writeFileSync(join(source, 'hello'), 'hello\n');
  const started = await runPoly(['start'], site.env);
  t.is(started.code, 0, started.stderr);
  const env = {
    ...site.env,
    A: a,
    B: b,
    SOURCE: source,
    STAGE: stage,
    LAUNCHER: join(root, 'mount-helpers/mount.poly'),
  };
  const inside = (script: string, more: NodeJS.ProcessEnv = {}): Promise<Ended> =>
    run('unshare', ['--mount', '--propagation', 'private', 'bash', '-c', prelude + script], {
      ...env,
      ...more,
    });
  const ls = async (): Promise<MountInfo[]> => {
    const { stdout } = await runPoly(['ls', '--json'], site.env);
    return JSON.parse(stdout) as MountInfo[];
  };
  return { env, a, b, source, inside, ls };
}

/** The script's own complaints and its output say most when it fails. */
function ok(t: ExecutionContext, ended: Ended, stdout: string): void {
  t.is(ended.stderr, '');
  t.is(ended.stdout, stdout);
  t.is(ended.code, 0);
}

for (const type of ['poly', 'fuse.poly']) {
  test(`mount -t ${type}: in the caller's namespace only; umount ends it`, async (t) => {
    const { a, inside, ls, env } = await place(t);
    const ended = await inside(
      `
mount -t ${type} memory "$A" -o size=10m,nosuid,nofail,_netdev,x-test && type_of "$A" && flags_of "$A"
echo data >"$A/file" && cat "$A/file"
grep -c " $A " /proc/1/mountinfo
"$POLY" ls --json | grep '"path"'
umount "$A" || exit
type_of "$A"
"$POLY" ls --json
`,
      { POLY: join(root, 'server/bin/poly.js') },
    );
    ok(t, ended, `fuse.poly\nrw,nosuid,relatime\ndata\n0\n    "path": "${a}",\n[]\n`);
    t.deepEqual(await ls(), []);
    t.regex((await runPoly(['stop'], env)).stdout, /^stopped\n$/);
  });
}

test('fstab: mount -a, again, by path, umount by path', async (t) => {
  const { a, b, source, inside, ls } = await place(t);
  const fstab = `${source}.fstab`;
  writeFileSync(
    fstab,
    `# comment
memory:scratch  ${a}  poly  size=10m,nofail,_netdev,x-systemd.requires=poly@x.service  0 0
local:${source}  ${b}  fuse.poly  ro,noauto,noatime,comment=hm,users  0 0
`,
  );
  const ended = await inside(`
mount -a -T "$SOURCE.fstab" && type_of "$A"; type_of "$B"
mount -a -T "$SOURCE.fstab"; echo again $?; grep -c " $A " /proc/self/mountinfo
mount -T "$SOURCE.fstab" "$B"; flags_of "$B"; cat "$B/hello"; touch "$B/new" 2>&1 | sed 's/.*: //'
umount "$B"; echo $?; umount "$A"; echo $?
`);
  ok(t, ended, 'fuse.poly\nagain 0\n1\nro,nosuid,nodev,noexec,noatime\nhello\nRead-only file system\n0\n0\n');
  t.deepEqual(await ls(), []);
});

test('-o remount,ro and remount,rw: the kernel, the service and poly ls agree', async (t) => {
  const { a, inside, ls } = await place(t);
  const ended = await inside(
    `
mode() { "$POLY" ls --json | grep readOnly; flags_of "$A"; }
mount -t poly memory "$A" -o nosuid || exit; echo 1 >"$A/f"
exec 3>>"$A/f"; mount -o remount,ro "$A" 2>/dev/null; echo busy $?; exec 3>&-; mode
mount -o remount,ro "$A" || exit; mode; (echo 2 >"$A/f") 2>&1 | sed 's/.*: //'
mount -o remount,rw "$A" || exit; mode; echo 3 >"$A/f"; cat "$A/f"
"$POLY" mount memory "$A" -o remount,ro; mode
umount "$A"
`,
    { POLY: join(root, 'server/bin/poly.js') },
  );
  const mode = (readOnly: boolean): string =>
    `    "readOnly": ${String(readOnly)},\n${readOnly ? 'ro' : 'rw'},nosuid,relatime\n`;
  ok(t, ended, `busy 32\n${mode(false)}${mode(true)}Read-only file system\n${mode(false)}3\n${mode(true)}`);
  t.false((await ls()).some((mount) => mount.path === a));
});

test('umount without any helper, umount -i and umount -l are right, too', async (t) => {
  const { inside, ls } = await place(t);
  const ended = await inside(`
mount -t poly memory "$A" && umount -i "$A"; echo $?
mount -t poly memory "$A" && umount -l "$A"; echo $?
mount -t poly memory "$A" && rm /usr/sbin/umount.*poly && umount "$A"; echo $?
mount -t poly memory "$A" && type_of "$A" && umount "$A"
`);
  ok(t, ended, '0\n0\n0\nfuse.poly\n');
  t.deepEqual(await ls(), []);
});

test('a busy mount: status 32 and one line; -r makes it read-only, -l detaches it', async (t) => {
  const { a, inside } = await place(t);
  // umount(8) itself says so where it finds the type by statfs(2), which knows no subtype: then no helper is called.
  const ended = await inside(`
mount -t poly memory "$A"
exec 3>"$A/f"
umount "$A"; echo $?
umount.poly "$A"; echo $?
exec 3>&- 3<"$A/f"
umount.poly -r "$A"; echo $?; flags_of "$A"
umount -l "$A"; echo $?; type_of "$A"
exec 3>&-
`);
  t.is(ended.stdout, '32\n32\n0\nro,relatime\n0\n');
  const [plain, helper, readOnly, ...rest] = ended.stderr.split('\n');
  t.regex(plain ?? '', /^umount(\.poly)?: \S+: .*busy/);
  t.is(helper, `umount.poly: ${a}: is busy (files there are open, or a shell stands in it)`);
  t.is(readOnly, `umount.poly: ${a}: is busy, made read-only instead`);
  t.deepEqual(rest, ['']);
});

test('mount -N mounts in the namespace of another process', async (t) => {
  const { inside, ls } = await place(t);
  const ended = await inside(`
unshare --mount --propagation private sleep 20 & other=$!
until [ "$(readlink /proc/$other/ns/mnt)" != "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.02; done
mount -N $other -t poly memory "$A"; echo $?
type_of "$A"; grep -c " $A .* fuse.poly " /proc/$other/mountinfo
umount -N $other "$A"; echo $?; grep -c " $A .* fuse.poly " /proc/$other/mountinfo
kill $other
`);
  ok(t, ended, '0\n1\n0\n0\n');
  t.deepEqual(await ls(), []);
});

test('a namespace that ends takes its mounts along, and the daemon sees it', async (t) => {
  const { inside, ls } = await place(t);
  ok(t, await inside('mount -t poly memory "$A" && type_of "$A"'), 'fuse.poly\n');
  const deadline = Date.now() + 10_000;
  while ((await ls()).length > 0 && Date.now() < deadline);
  t.deepEqual(await ls(), []);
});

test('failures are one line with the status mount(8) passes on', async (t) => {
  const { a, inside } = await place(t);
  const ended = await inside(`
mount -t poly memory "$A" -o rx; echo $?
mount -t poly nosuchname "$A"; echo $?
mount -t poly local:/nonexistent "$A"; echo $?
mount -t poly -o size=10m local:"$SOURCE" "$A"; echo $?
type_of "$A"
`);
  const [unknown, name, source, size, ...rest] = ended.stderr.split('\n');
  t.is(unknown, 'mount.poly: unknown mount option: rx');
  t.regex(name ?? '', /^mount\.poly: .*no filesystem named "nosuchname"/);
  t.regex(source ?? '', /^mount\.poly: .*\/nonexistent/);
  t.regex(size ?? '', /^mount\.poly: .*size/);
  t.deepEqual(rest, ['']);
  t.regex(ended.stdout, /^1\n(1|32)\n(1|32)\n1\n$/);
  t.notRegex(ended.stdout, new RegExp(a));
});

test('named filesystems of the configuration, with a subdirectory', async (t) => {
  const { source, env, inside } = await place(t);
  const config = env['POLY_CONFIG_DIR'] ?? '';
  mkdirSync(config, { recursive: true });
  mkdirSync(join(source, 'app'));
  writeFileSync(join(source, 'app/file'), 'inner\n');
  writeFileSync(
    join(config, 'web.toml'),
    `[filesystem.web]\ntype = "local"\nsource = "${source}"\noptions = "ro"\n`,
  );
  const ended = await inside(`
mount -t poly web "$A" && cat "$A/hello" && flags_of "$A"
mount -t poly web/app "$B" -o noatime && cat "$B/file" && flags_of "$B"
umount "$A" "$B"; echo $?
`);
  ok(t, ended, 'hello\nro,relatime\ninner\nro,noatime\n0\n');
});

test("fstab's user option: an ordinary user's own daemon serves the mount", async (t) => {
  const { a, source, env, inside } = await place(t);
  t.is((await runPoly(['stop'], env)).code, 0);
  const runDir = env['POLY_RUN_DIR'] ?? '';
  for (const path of [runDir, a, join(a, '..')]) chownSync(path, 65534, 65534);
  for (const file of readdirSync(runDir)) rmSync(join(runDir, file), { recursive: true });
  // Root's daemon has opened it for searching; that of a user refuses such a directory.
  chmodSync(runDir, 0o700);
  writeFileSync(`${source}.fstab`, `memory:u ${a} poly noauto,user,size=4m 0 0\n`);
  const ended = await inside(
    `
mount --bind "$SOURCE.fstab" /etc/fstab
user() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
user test -r "$POLY" || { echo unreadable; exit; }
user mount "$A" 2>/dev/null; echo $?; type_of "$A"; flags_of "$A"
user sh -c 'echo data >"$A/f"; cat "$A/f"'
user umount "$A"; echo $?
user "$POLY" stop
`,
    { POLY: join(root, 'server/bin/poly.js') },
  );
  if (ended.stdout === 'unreadable\n') t.pass('the checkout is not readable for other users');
  else ok(t, ended, '0\nfuse.poly\nrw,nosuid,nodev,noexec,relatime\ndata\n0\nstopped\n');
});
