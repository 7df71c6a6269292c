/** Mount options, specs and the run directory: pure parsing. */
import test from 'ava';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../../server/config.ts';
import { flagList, mergeOptions, parseOptionString, parseSettings } from '../../server/options.ts';
import { schemas } from '../../server/protocol.ts';
import { checkRunDir, ensureRunDir, runDir, runDirPath } from '../../server/rundir.ts';
import { parseSpec } from '../../server/spec.ts';
import { loadState, saveState, emptyState } from '../../server/state.ts';
import { failure, temporary } from './helpers.ts';
import { readdirSync } from 'node:fs';

const settingsOf = (text: string) => parseSettings(parseOptionString(text));
const thrown = (work: () => unknown) => failure(Promise.resolve().then(work));

test('flags by their mount(8) names, the later of opposites wins', (t) => {
  t.deepEqual(settingsOf('ro,nosuid,nodev,noexec,noatime').flags, {
    ro: true,
    nosuid: true,
    nodev: true,
    noexec: true,
    noatime: true,
  });
  t.is(settingsOf('ro,rw').flags.ro, false);
  t.is(settingsOf('rw,ro,rw,ro').flags.ro, true);
  t.is(settingsOf('nosuid,suid').flags.nosuid, false);
  t.deepEqual(flagList(settingsOf('relatime,strictatime').flags), ['rw', 'strictatime']);
});

test("other programs' options are dropped", (t) => {
  const text =
    'defaults,_netdev,nofail,auto,noauto,user,users,x-systemd.requires=a.service,X-foo,comment=hi,ro';
  t.deepEqual(parseOptionString(text), { ro: true });
  t.deepEqual(settingsOf(text).flags, { ro: true });
});

test('memory options: sizes, percent, inodes, mode', (t) => {
  const { memory } = settingsOf('size=64m,inodes=10k,mode=1777,uid=5,gid=6');
  t.deepEqual(memory, { size: 64 * 2 ** 20, inodes: 10240, mode: 0o1777, uid: 5, gid: 6 });
  t.is(settingsOf('size=50%').memory.size, Math.floor((totalmem() / 100) * 50));
  t.is(settingsOf('size=4096').memory.size, 4096);
  t.deepEqual(settingsOf('huge=within_size').memory, { huge: 'within_size' });
  t.is(settingsOf('attr_timeout=0.5').attrTimeout, 0.5);
});

test('what is wrong is named', async (t) => {
  const cases: [string, RegExp][] = [
    ['bogus', /^EINVAL unknown mount option: bogus$/],
    ['__proto__', /^EINVAL unknown mount option: __proto__$/],
    ['toString=1', /unknown mount option: toString/],
    ['ro=1', /option ro: takes no value/],
    ['size', /option size: needs a value/],
    ['size=', /option size: needs a value/],
    ['size=-1', /option size=-1: not a size/],
    ['size=1x', /option size=1x: not a size/],
    ['size=9999999999999999t', /not a size/],
    ['huge=yes', /option huge=yes: must be never, always, within_size, advise/],
    ['inodes=5%', /option inodes=5%: not a number/],
    ['mode=8', /not an octal mode/],
    ['mode=17777', /not an octal mode/],
    ['uid=4294967295', /option uid/],
    ['uid=root', /option uid=root/],
    ['attr_timeout=-1', /option attr_timeout/],
    ['attr_timeout=1e9', /option attr_timeout/],
    ['pool=../x', /not a pool name/],
    ['poll=on', /option poll=on: not a number/],
    ['=x', /no name/],
  ];
  for (const [text, pattern] of cases) t.regex(await thrown(() => settingsOf(text)), pattern, text);
});

test('request options go on top of configured ones', (t) => {
  t.deepEqual(mergeOptions({ ro: true, size: '1m' }, { rw: true, size: '2m' }), {
    ro: true,
    rw: true,
    size: '2m',
  });
  t.is(parseSettings(mergeOptions({ ro: true, rw: true }, { ro: true })).flags.ro, true);
});

const config: Config = {
  filesystems: new Map([
    [
      'web',
      {
        name: 'web',
        type: 'local',
        source: '/srv/web/',
        options: { ro: true },
        pool: 'tenant',
        file: 'a',
        line: 1,
      },
    ],
    ['ram', { name: 'ram', type: 'memory', options: { size: '1m' }, file: 'a', line: 9 }],
  ]),
  pools: new Map(),
  files: ['a'],
};
const spec = (text: string) => parseSpec(text, () => config);

test('"user" is for mount(8), "user=NAME" for Ceph', (t) => {
  t.deepEqual(parseOptionString('user,ro'), { ro: true });
  t.deepEqual(settingsOf('user=t1,conf=/c,cache=64m,op_timeout=5').ceph, {
    user: 't1',
    conf: '/c',
    cache: 2 ** 26,
    opTimeout: 5,
  });
});

test('specs: direct and configured', (t) => {
  t.like(spec('memory'), { type: 'memory', identity: null, subdirectory: '' });
  t.like(spec('memory:x'), { type: 'memory', identity: 'memory:x' });
  t.like(spec('local:/srv//data/'), { type: 'local', source: '/srv/data', identity: 'local:/srv/data' });
  t.like(spec('local:/'), { source: '/' });
  t.like(spec('ceph:/t1//'), { type: 'ceph', source: '/t1', subdirectory: '' });
  t.like(spec('web'), {
    source: '/srv/web',
    identity: 'local:/srv/web',
    pool: 'tenant',
    options: { ro: true },
  });
  t.like(spec('web/app//a/'), { source: '/srv/web', subdirectory: 'app/a' });
  t.like(spec('ram/x'), { type: 'memory', identity: 'config:ram', subdirectory: 'x' });
  t.like(spec('local:/a:b'), { source: '/a:b' });
});

test('bad specs say what to write', async (t) => {
  const cases: [string, RegExp][] = [
    ['nosuch', /^ENOENT no filesystem named "nosuch" \(configured: web, ram/],
    ['', /no filesystem named ""/],
    ['/srv', /say local:\/srv/],
    ['ceph:x', /ceph needs an absolute directory/],
    ['nfs:/x', /unknown filesystem type "nfs"/],
    ['local:srv', /absolute/],
    ['local:', /absolute/],
    ['local:/a/../b', /"\.\."/],
    ['web/../etc', /"\.\."/],
    ['memory:', /memory name/],
    ['memory:a/b', /memory name/],
    ['local:/a\0b', /NUL/],
  ];
  for (const [text, pattern] of cases) t.regex(await thrown(() => spec(text)), pattern, text);
});

test('mount paths must be absolute and in normal form', (t) => {
  const accepts = (path: unknown) => schemas['mount.find'].safeParse({ path }).success;
  for (const path of ['/', '/a', '/a/b', '/a/..b', '/a/...', '/a b/ü', `/${'x'.repeat(4094)}`])
    t.true(accepts(path), path);
  for (const path of [
    '',
    'a',
    './a',
    '//',
    '//a',
    '/a/',
    '/a//b',
    '/.',
    '/a/.',
    '/a/./b',
    '/..',
    '/a/../b',
    '/a\0',
    5,
    null,
    `/${'x'.repeat(4095)}`,
  ]) {
    t.false(accepts(path), String(path));
  }
});

test('where the run directory is', (t) => {
  t.is(runDirPath({ POLY_RUN_DIR: '/x/y' }, 0), '/x/y');
  t.is(runDirPath({}, 0), '/run/poly');
  t.is(runDirPath({ XDG_RUNTIME_DIR: '/run/user/5' }, 5), '/run/user/5/poly');
  t.is(runDirPath({}, 5), '/tmp/poly-5');
});

test('a run directory that others can enter, or of others, is refused', async (t) => {
  const base = temporary(t);
  const dir = runDir(join(base, 'run'));
  ensureRunDir(dir);
  t.notThrows(() => {
    checkRunDir(dir);
  });
  chmodSync(dir.path, 0o755);
  t.regex(
    await thrown(() => {
      ensureRunDir(dir);
    }),
    /^EPERM .*mode 755/,
  );
  chmodSync(dir.path, 0o700);
  t.regex(
    await thrown(() => {
      checkRunDir(dir, 12345);
    }),
    /^EPERM .*belongs to uid/,
  );
  writeFileSync(join(base, 'file'), '');
  t.regex(
    await thrown(() => {
      ensureRunDir(runDir(join(base, 'file')));
    }),
    /EEXIST|ENOTDIR/,
  );
  t.regex(await thrown(() => runDir(`/tmp/${'x'.repeat(100)}`)), /^ENAMETOOLONG/);
  mkdirSync(join(base, 'other'), { mode: 0o700 });
});

test('state is read back as written; a damaged file is kept and named', async (t) => {
  const file = join(temporary(t), 'state.json');
  t.deepEqual(loadState(file), emptyState());
  const state = { ...emptyState(), nextService: 7 };
  saveState(file, state);
  t.deepEqual(loadState(file), state);
  for (const text of ['', '{', '[]', '{"version":2}', '{"version":1,"services":[{}]}', '\0\0\0']) {
    writeFileSync(file, text);
    t.regex(
      await thrown(() => loadState(file)),
      /^EUCLEAN .*damaged .*kept as .*state\.json\.damaged-\d+/,
      text,
    );
  }
  t.true(readdirSync(join(file, '..')).some((name) => name.startsWith('state.json.damaged-')));
});
