/**
 * The units under a real systemd: a user manager in a mount namespace of its own, with a /run of its own, so that it runs
 * on machines (and in containers) that systemd did not boot.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import anyTest, { type ExecutionContext } from 'ava';
import { poly, root, run } from '../server/cli_harness.ts';
import { missing, realSite } from '../server/real.ts';

const SYSTEMD = '/lib/systemd/systemd';

const prelude = `
set -u
mount -t tmpfs none /run && mkdir -p /run/systemd/system /run/u && chmod 700 /run/u || exit 99
export XDG_RUNTIME_DIR=/run/u POLY_RUN_DIR=/run/u/poly SYSTEMD_UNIT_PATH="$UNITS:/usr/lib/systemd/user"
${SYSTEMD} --user --unit=basic.target >"$UNITS/log" 2>&1 & manager=$!
trap 'kill $manager; wait $manager' EXIT
for i in $(seq 100); do [ -S /run/u/systemd/private ] && break; sleep 0.1; done
[ -S /run/u/systemd/private ] || exit 98
poly() { "$NODE" "$POLY" "$@"; }
show() { systemctl --user show "$1" -p "$2" --value; }
state() { poly ls --json | grep '"state"'; }
`;

/** With a pid namespace: whatever becomes of the script, nothing it started lives on. */
const unshare = '--mount --propagation private --pid --fork --kill-child --mount-proc bash -c'.split(' ');

async function unavailable(): Promise<string | undefined> {
  const why = missing();
  if (why !== undefined) return why;
  if (!existsSync(SYSTEMD) || !existsSync('/usr/bin/systemctl')) return 'needs systemd';
  const probe = 'mkdir "$1" && UNITS="$1"\n' + prelude;
  const directory = execFileSync('mktemp', ['-d'], { encoding: 'utf8' }).trim();
  const { code } = await run(
    'unshare',
    [...unshare, probe, 'bash', join(directory, 'u')],
    {},
    { timeoutMs: 20_000 },
  );
  execFileSync('rm', ['-rf', directory]);
  return code === 0 ? undefined : 'a user manager of systemd does not run here';
}

const why = await unavailable();
const test = why === undefined ? anyTest.serial : anyTest.serial.skip;
if (why !== undefined) {
  anyTest(`systemd: skipped, ${why}`, (t) => {
    t.pass();
  });
}

/** Runs a script beside a manager that knows our units; answers its output by lines. */
async function withManager(t: ExecutionContext, script: string): Promise<string[]> {
  const { root: directory } = realSite(t);
  const [units = '', stage = '', a = ''] = ['units', 'stage', 'a'].map((name) => join(directory, name));
  for (const path of [units, stage, a]) mkdirSync(path);
  execFileSync('bash', [join(root, 'scripts/install.sh')], { env: { ...process.env, DESTDIR: stage } });
  const installed = join(stage, 'usr/local/lib/systemd');
  copyFileSync(join(installed, 'user/poly.service'), join(units, 'poly.service'));
  copyFileSync(join(installed, 'system/poly@.service'), join(units, 'poly@.service'));
  // Root's run directory would be /run/poly, where the user manager has /run/u/poly.
  for (const unit of ['poly.service', 'poly@.service']) {
    mkdirSync(join(units, `${unit}.d`));
    writeFileSync(
      join(units, `${unit}.d/test.conf`),
      `[Service]\nEnvironment=POLY_RUN_DIR=%t/poly POLY_CONFIG_DIR=${units}\n`,
    );
  }
  writeFileSync(
    join(units, 'web.toml'),
    `[filesystem.web]\ntype = "memory"\npath = "${a}"\n[filesystem.bare]\ntype = "memory"\n`,
  );
  const env = { UNITS: units, A: a, NODE: process.execPath, POLY: poly, POLY_CONFIG_DIR: units };
  const ended = await run('unshare', [...unshare, prelude + script], env, { timeoutMs: 80_000 });
  t.is(ended.stderr, '');
  t.is(ended.code, 0);
  return ended.stdout.trimEnd().split('\n');
}

test('poly.service: ready when it says so; restarts, kills and stops take no mount away', async (t) => {
  const lines = await withManager(
    t,
    `
systemctl --user start poly.service || exit
show poly.service ActiveState
poly mount memory "$A" >/dev/null; echo data >"$A/f"
systemctl --user restart poly.service; cat "$A/f"; state
kill -9 $(show poly.service MainPID)
until [ "$(show poly.service NRestarts)" = 1 ] && [ "$(show poly.service ActiveState)" = active ]; do sleep 0.1; done
cat "$A/f"; state
systemctl --user stop poly.service; cat "$A/f"
systemctl --user start poly.service; state
poly stop
until [ "$(show poly.service ActiveState)" = inactive ]; do sleep 0.1; done
sleep 1; show poly.service ActiveState; show poly.service Result
`,
  );
  const mounted = '    "state": "mounted",';
  t.deepEqual(lines, [
    'active',
    'data',
    mounted,
    'data',
    mounted,
    'data',
    mounted,
    'stopped',
    'inactive',
    'success',
  ]);
});

test('poly@NAME.service mounts at the configured path; a restart of the daemon leaves it alone', async (t) => {
  const lines = await withManager(
    t,
    `
systemctl --user start poly@web.service || exit
show poly.service ActiveState; echo data >"$A/f"; poly ls --json | grep '"spec"'
systemctl --user restart poly.service; show poly@web.service ActiveState; cat "$A/f"
systemctl --user start poly@bare.service; show poly@bare.service ActiveState
systemctl --user start poly@nosuch.service 2>/dev/null || echo failed
systemctl --user stop poly@web.service; poly ls --json
systemctl --user stop poly@bare.service; show poly@bare.service Result
poly stop
`,
  );
  t.deepEqual(lines, [
    'active',
    '    "spec": "web",',
    'active',
    'data',
    'active',
    'failed',
    '[]',
    'success',
    'stopped',
  ]);
});
