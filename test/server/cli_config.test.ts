import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { configDirectories, ConfigError, configFiles, loadConfig } from '../../server/config.ts';
import { runPoly, temporaryDirectory } from './cli_harness.ts';

/** The error of a file with this text, without the directory. */
function complaint(text: string): string {
  const directory = temporaryDirectory();
  const file = join(directory, 'a.toml');
  writeFileSync(file, text);
  try {
    loadConfig([file]);
    return 'accepted';
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.message.replace(`${directory}/`, '');
  } finally {
    rmSync(directory, { recursive: true });
  }
}

test('a configuration is read into names, layers and options', (t) => {
  const directory = temporaryDirectory();
  const file = join(directory, 'a.toml');
  writeFileSync(
    file,
    `[filesystem.web]
type = "local"
source = "/srv//web/"
path = "/srv/app/"
options = "ro,noatime,x-later"

[filesystem.scratch]
stack = [{ type = "memory", size = "64m", mode = 0o1777 }]
options = { attr_timeout = 5, sync = true, noatime = false }
pool = "builds"

[pool.builds]
description = "compilers"
`,
  );
  const { filesystems, pools } = loadConfig([file]);
  rmSync(directory, { recursive: true });
  t.deepEqual(filesystems.get('web'), {
    name: 'web',
    type: 'local',
    source: '/srv/web',
    path: '/srv/app',
    options: { ro: true, noatime: true },
    file,
    line: 1,
  });
  t.deepEqual(filesystems.get('scratch'), {
    name: 'scratch',
    type: 'memory',
    options: { size: '64m', mode: '1777', attr_timeout: '5', sync: true },
    pool: 'builds',
    file,
    line: 7,
  });
  t.is(pools.get('builds')?.description, 'compilers');
});

const faults: [name: string, text: string, message: string | RegExp][] = [
  [
    'unknown key',
    '[filesystem.web]\ntype = "memory"\nfoo = 1',
    "a.toml:3: key 'filesystem.web.foo': is not known",
  ],
  ['unknown table', '\n[filesytem.web]\n', "a.toml:2: key 'filesytem': is not known"],
  [
    'bad size',
    '[filesystem.web]\ntype = "memory"\n\nsize = "x"',
    /^a\.toml:4: key 'filesystem\.web\.size': must be bytes/,
  ],
  [
    'bad mode',
    '[filesystem.web]\ntype = "memory"\nmode = "9"',
    /^a\.toml:3: key 'filesystem\.web\.mode': must be octal/,
  ],
  [
    'no type',
    '[filesystem.web]\n',
    "a.toml:1: key 'filesystem.web.type': missing (available: memory, local, ceph)",
  ],
  [
    'wrong type of value',
    '[filesystem.web]\ntype = 1',
    "a.toml:2: key 'filesystem.web.type': must be a string",
  ],
  ['not a table', 'filesystem = 1', "a.toml:1: key 'filesystem': must be a table"],
  [
    'a layer of the future',
    '[filesystem.web]\ntype = "union"',
    "a.toml:2: key 'filesystem.web.type': layer 'union' is not available yet (available: memory, local, ceph)",
  ],
  [
    'a layer of the future in a stack, on its own line',
    '[filesystem.web]\nstack = [\n  { type = "memory" }, # first\n  { type = "cache" },\n]',
    "a.toml:4: key 'filesystem.web.stack.1.type': layer 'cache' is not available yet (available: memory, local, ceph)",
  ],
  [
    'two layers',
    '[filesystem.web]\nstack = [{ type = "memory" }, { type = "local", source = "/a" }]',
    "a.toml:2: key 'filesystem.web.stack': a second layer ('local') is not available yet: one layer only",
  ],
  [
    'a type nobody has heard of',
    '[filesystem.web]\ntype = "zfs"',
    "a.toml:2: key 'filesystem.web.type': unknown filesystem type 'zfs' (available: memory, local, ceph)",
  ],
  [
    'type and stack',
    '[filesystem.web]\ntype = "memory"\nstack = [{ type = "memory" }]',
    /:2: key 'filesystem\.web\.type': belongs/,
  ],
  [
    'an unknown mount option',
    '[filesystem.web]\ntype = "memory"\noptions = "ro,rx"',
    /:3: key 'filesystem\.web\.options': .*rx/,
  ],
  ['local without source', '[filesystem.web]\ntype = "local"', /:1: key 'filesystem\.web\.source': missing/],
  [
    'a relative source',
    '[filesystem.web]\ntype = "local"\nsource = "web"',
    /:3: key 'filesystem\.web\.source': must be an absolute/,
  ],
  [
    'size for local',
    '[filesystem.web]\ntype = "local"\nsource = "/a"\nsize = 1',
    /:4: key 'filesystem\.web\.size': is not for/,
  ],
  [
    'a user for local',
    '[filesystem.web]\ntype = "local"\nsource = "/a"\nuser = "x"',
    /:4: key 'filesystem\.web\.user': is not for type 'local'/,
  ],
  ['ceph without source', '[filesystem.web]\ntype = "ceph"', /:1: key 'filesystem\.web\.source': missing/],
  [
    'a cache of ceph that would be slow',
    '[filesystem.web]\ntype = "ceph"\nsource = "/"\ncache = "8m"',
    /:4: key 'filesystem\.web\.cache': option cache=8m: must be 32m at least/,
  ],
  [
    'a way of writing nobody knows',
    '[filesystem.web]\ntype = "ceph"\nsource = "/"\nwrite = "never"',
    /:4: key 'filesystem\.web\.write': must be "through" or "back"/,
  ],
  ['a bad name', '[filesystem."a b"]\ntype = "memory"', /:1: key 'filesystem\.a b': a name is/],
  [
    'the name of a type',
    '[filesystem.memory]\ntype = "memory"',
    /:1: key 'filesystem\.memory': is the name of/,
  ],
  ['reserved limits', '[pool.a]\nlimits = { cpu = 1 }', /:2: key 'pool\.a\.limits': is reserved/],
  ['not TOML', '[filesystem.web\n', /^a\.toml:1: not TOML: /],
  ['defined twice', '[filesystem.a]\ntype="memory"\n[filesystem.a]\n', /^a\.toml:\d: not TOML: /],
  [
    'dotted keys',
    'filesystem.web.type = "memory"\nfilesystem.web.bad = 1',
    /^a\.toml:2: key 'filesystem\.web\.bad'/,
  ],
  [
    'after a multi-line string',
    '[pool.a]\ndescription = """\n[x]\ny = "\n"""\nbad = 1',
    /^a\.toml:6: key 'pool\.a\.bad'/,
  ],
];

for (const [name, text, message] of faults) {
  test(`fault: ${name}`, (t) => {
    const said = complaint(text);
    if (typeof message === 'string') t.is(said, message);
    else t.regex(said, message);
    t.false(said.includes('\n'));
  });
}

test('a name defined in two files: both are named', (t) => {
  const directory = temporaryDirectory();
  const files = ['a.toml', 'b.toml'].map((name) => join(directory, name));
  for (const file of files) writeFileSync(file, '\n[filesystem.web]\ntype = "memory"\n');
  t.throws(() => loadConfig(files), {
    message: `${files[1] ?? ''}:2: key 'filesystem.web': is already defined in ${files[0] ?? ''}:2`,
  });
  rmSync(directory, { recursive: true });
});

test('directories: POLY_CONFIG_DIR alone, else /etc/poly and then the user', (t) => {
  t.deepEqual(configDirectories({ POLY_CONFIG_DIR: '/x', HOME: '/h' }), ['/x']);
  t.deepEqual(configDirectories({ HOME: '/h' }), ['/etc/poly', '/h/.config/poly']);
  t.deepEqual(configDirectories({ HOME: '/h', XDG_CONFIG_HOME: '/c' }), ['/etc/poly', '/c/poly']);
});

test('files: *.toml by name, nothing where the directory is missing', (t) => {
  const directory = temporaryDirectory();
  for (const name of ['b.toml', 'a.toml', '.hidden.toml', 'c.toml~', 'd.conf'])
    writeFileSync(join(directory, name), '');
  t.deepEqual(configFiles([directory, '/nonexistent']), [
    join(directory, 'a.toml'),
    join(directory, 'b.toml'),
  ]);
  rmSync(directory, { recursive: true });
});

test('a file that cannot be read is named', (t) => {
  const directory = temporaryDirectory();
  mkdirSync(join(directory, 'a.toml'));
  t.throws(() => loadConfig(configFiles([directory])), { message: /a\.toml:1: cannot be read: EISDIR/ });
  rmSync(directory, { recursive: true });
});

test('poly config check: status 0 and what was found, or status 1 and the line at fault', async (t) => {
  const directory = temporaryDirectory();
  const env = { POLY_CONFIG_DIR: directory };
  t.deepEqual(await runPoly(['config', 'check'], env), {
    code: 0,
    stdout: `no files in ${directory}\n`,
    stderr: '',
  });
  const file = join(directory, 'a.toml');
  writeFileSync(file, '[filesystem.web]\ntype = "memory"\n');
  const good = await runPoly(['config', 'check'], env);
  t.deepEqual(good, { code: 0, stdout: `${file}: ok (file systems: web; pools: none)\n`, stderr: '' });
  writeFileSync(file, '[filesystem.web]\ntype = "memory"\nsize = "big"\n');
  for (const args of [[], [file]]) {
    const bad = await runPoly(['config', 'check', ...args], env);
    t.is(bad.code, 1);
    t.regex(bad.stderr, /^poly: \S+\/a\.toml:3: key 'filesystem\.web\.size': must be [^\n]*\n$/);
  }
  rmSync(directory, { recursive: true });
});
