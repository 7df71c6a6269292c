/**
 * Verified writers on memory and local while services and polyd are killed at random: nothing done twice, nothing lost,
 * no wrong byte. Ten kills; POLY_TEST_FULL=1: a hundred.
 */
import test, { type ExecutionContext } from 'ava';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { status, temporary, until } from './helpers.ts';
import { missing, mountReal, realSite, sh } from './real.ts';

/** Every step fails loudly when it was done twice or not at all. Runs until its standard input ends. */
const WRITER = `
const fs = require('fs'), crypto = require('crypto'), assert = require('assert');
const dir = process.argv[1];
const log = fs.openSync(dir + '/log', 'a');
let n = 0, more = true;
process.stdin.on('end', () => { more = false; }).resume();
function step() {
  const d = dir + '/d' + n, data = crypto.randomBytes(5000), back = Buffer.alloc(5000);
  fs.mkdirSync(d);
  const fd = fs.openSync(d + '/x', 'wx+');
  assert.equal(fs.writeSync(fd, data), 5000);
  fs.renameSync(d + '/x', d + '/y');
  fs.linkSync(d + '/y', d + '/z');
  assert.equal(fs.readSync(fd, back, 0, 5000, 0), 5000);
  assert(back.equals(data));
  fs.unlinkSync(d + '/y');
  fs.unlinkSync(d + '/z');
  assert.equal(fs.fstatSync(fd).nlink, 0);
  assert.equal(fs.readSync(fd, back.fill(0), 0, 5000, 0), 5000);
  assert(back.equals(data));
  fs.closeSync(fd);
  fs.rmdirSync(d);
  assert(!fs.existsSync(d));
  fs.writeSync(log, n++ + '\\n');
  if (more) return void setImmediate(step);
  const lines = fs.readFileSync(dir + '/log', 'utf8').trim().split('\\n').map(Number);
  assert.equal(lines.length, n);
  lines.forEach((line, i) => assert.equal(line, i));
  assert.deepEqual(fs.readdirSync(dir), ['log']);
  console.log('verified ' + n);
}
step();`;

interface Writer {
  finish: () => Promise<string>;
}

function startWriter(dir: string): Writer {
  const child = spawn(process.execPath, ['-e', WRITER, dir], { stdio: ['pipe', 'pipe', 'pipe'] });
  let text = '';
  const add = (chunk: Buffer) => (text += chunk.toString());
  child.stdout.on('data', add);
  child.stderr.on('data', add);
  let ended = false;
  child.on('close', () => (ended = true));
  return {
    finish: async () => {
      child.stdin.end();
      await until(`writer in ${dir} ends`, 20_000, () => ended);
      return text.trim();
    },
  };
}

const victims = ['service', 'service', 'polyd', 'polyd and service', 'all'] as const;

async function soak(t: ExecutionContext, kills: number): Promise<void> {
  const { site, root } = realSite(t);
  let client = await site.start();
  await mountReal(site, client, join(root, 'm'), 'memory');
  await mountReal(site, client, join(root, 'l'), `local:${temporary(t, 'poly-src-')}`);
  const dirs = ['m/1', 'm/2', 'l/1', 'l/2'].map((name) => join(root, name));
  await sh(`mkdir ${dirs.join(' ')}`);
  const writers = dirs.map(startWriter);
  for (let kill = 0; kill < kills; kill++) {
    await sleep(200 + Math.random() * 400);
    const victim = victims[kill % victims.length] ?? 'service';
    const pids = (await status(client)).services.map((service) => service.pid).filter((pid) => pid > 0);
    const chosen =
      victim === 'all' ? pids : victim === 'polyd' ? [] : [pids[kill % 2] ?? 0].filter((pid) => pid > 0);
    if (victim !== 'service') site.child?.kill('SIGKILL');
    for (const pid of chosen) process.kill(pid, 'SIGKILL');
    if (victim === 'service') continue;
    await site.end('SIGKILL');
    client = await site.start();
  }
  const results = await Promise.all(writers.map((writer) => writer.finish()));
  for (const [i, result] of results.entries()) t.regex(result, /^verified \d+$/, dirs[i] ?? '');
  t.log(results.join(', '));
  t.deepEqual(
    (await client.request('mount.list', {})).map((info) => info.state),
    ['mounted', 'mounted'],
  );
}

const reason = missing();
const kills = process.env['POLY_TEST_FULL'] === '1' ? 100 : 10;
const title = `${String(kills)} kills of services and polyd under verified writers`;
if (reason === undefined) {
  test.serial(title, async (t) => {
    t.timeout(kills * 3000 + 60_000);
    await soak(t, kills);
  });
} else {
  test.serial.skip(`${title} (${reason})`, soak, kills);
}
