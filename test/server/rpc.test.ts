/** Framing and bounds of server/rpc.ts, against a raw socket. */
import test from 'ava';
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { PolyError } from '../../server/errors.ts';
import { connectRpc, listenRpc, MAX_LINE, UnknownMethod, type PeerHandlers } from '../../server/rpc.ts';
import { failure, temporary, until } from './helpers.ts';

const handlers: PeerHandlers = {
  onRequest: (method, params) => {
    if (method === 'echo') return params;
    if (method === 'nothing') return undefined;
    if (method === 'null') return null;
    if (method === 'slow') return new Promise((resolve) => setTimeout(resolve, 50, 'late'));
    if (method === 'never') return new Promise(() => undefined);
    if (method === 'fail') throw new PolyError('EBUSY', '/mnt/a: taken');
    throw new UnknownMethod(method);
  },
};

async function serve(t: Parameters<typeof temporary>[0]): Promise<string> {
  const path = join(temporary(t), 'rpc.sock');
  const server = await listenRpc(path, { accept: () => handlers, maxConnections: 4000 });
  t.teardown(() => server.close());
  return path;
}

/** Sends raw bytes, returns what came back until the other end closed or `lines` lines are there. */
async function raw(
  path: string,
  bytes: (string | Buffer)[],
  lines: number,
): Promise<{ text: string; closed: boolean }> {
  const socket: Socket = connect(path);
  await once(socket, 'connect');
  let text = '';
  let closed = false;
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  socket.on('error', () => undefined);
  socket.on('close', () => (closed = true));
  for (const part of bytes) socket.write(part);
  await until('an answer', 5000, () => closed || text.split('\n').length > lines);
  socket.destroy();
  return { text, closed };
}

const request = (id: unknown, method: string, params: unknown) =>
  `${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`;

test('requests are answered, errors keep their code', async (t) => {
  const peer = await connectRpc(await serve(t));
  t.deepEqual(await peer.request('echo', { a: [1, 'zwei'] }), { a: [1, 'zwei'] });
  t.deepEqual(await peer.request('nothing', {}), {});
  t.is(await peer.request('null', {}), null);
  t.is(await failure(peer.request('fail', {})), 'EBUSY /mnt/a: taken');
  t.regex(await failure(peer.request('bogus', {})), /unknown method: bogus/);
  t.regex(await failure(peer.request('never', {}, 50)), /^ETIMEDOUT/);
  const pending = failure(peer.request('never', {}));
  peer.socket.destroy();
  t.regex(await pending, /^ECONNRESET/);
  t.regex(await failure(peer.request('echo', {})), /^ECONNRESET/);
});

test('answers come as they are ready, by id', async (t) => {
  const peer = await connectRpc(await serve(t));
  const order: string[] = [];
  await Promise.all([
    peer.request('slow', {}).then(() => order.push('slow')),
    peer.request('echo', {}).then(() => order.push('echo')),
  ]);
  t.deepEqual(order, ['echo', 'slow']);
  peer.end();
});

test('a message may come in any pieces', async (t) => {
  const path = await serve(t);
  const line = Buffer.from(request(1, 'echo', { text: 'ä€😀' }));
  const socket = connect(path);
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  for (const byte of line) {
    socket.write(Buffer.of(byte));
    await new Promise(setImmediate);
  }
  await until('the answer', 5000, () => text.endsWith('\n'));
  t.deepEqual(JSON.parse(text), { jsonrpc: '2.0', id: 1, result: { text: 'ä€😀' } });
  socket.destroy();
});

test('malformed lines are answered by an error and the connection goes on', async (t) => {
  const path = await serve(t);
  const bad = [
    'not json\n',
    '{"jsonrpc":"2.0"\n',
    '[]\n',
    '[{"jsonrpc":"2.0","id":1,"method":"echo"}]\n',
    'null\n',
    '42\n',
    '{"id":1,"method":"echo"}\n',
    '{"jsonrpc":"2.0","id":{},"method":"echo"}\n',
    '{"jsonrpc":"2.0","id":true,"method":"echo"}\n',
    '{"jsonrpc":"2.0","id":1,"method":7}\n',
    '{"jsonrpc":"2.0","id":1}\n',
    Buffer.from([0xff, 0xfe, 0x0a]),
    Buffer.from([0, 1, 2, 3, 0x0a]),
  ];
  const { text, closed } = await raw(path, [...bad, '\n', request('last', 'echo', 5)], bad.length + 1);
  const answers = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  t.false(closed);
  t.is(answers.length, bad.length + 1);
  t.true(answers.slice(0, -1).every((answer) => 'error' in answer));
  t.deepEqual(answers.at(-1), { jsonrpc: '2.0', id: 'last', result: 5 });
});

test('answers nobody waits for and notifications are ignored', async (t) => {
  const { text } = await raw(
    await serve(t),
    [
      '{"jsonrpc":"2.0","id":99,"result":1}\n{"jsonrpc":"2.0","id":"x","error":null}\n{"jsonrpc":"2.0","id":null,"error":7}\n',
      '{"jsonrpc":"2.0","method":"echo"}\n',
      request(1, 'echo', 1),
    ],
    1,
  );
  t.deepEqual(JSON.parse(text), { jsonrpc: '2.0', id: 1, result: 1 });
});

test('a line of the allowed length is read, a longer one closes the connection', async (t) => {
  const path = await serve(t);
  const frame = request(1, 'echo', '').length - 1;
  const fits = await raw(path, [request(1, 'echo', 'x'.repeat(MAX_LINE - frame))], 1);
  t.true(fits.text.includes('xxx'));
  for (const bytes of [
    [request(1, 'echo', 'x'.repeat(MAX_LINE - frame + 1))],
    Array<string>(20).fill('y'.repeat(MAX_LINE / 8)),
  ]) {
    const { text, closed } = await raw(path, bytes, 99);
    t.true(closed);
    t.regex(text, /EMSGSIZE/);
  }
});

test('a peer that does not read its answers is cut off', async (t) => {
  const path = await serve(t);
  const socket = connect(path);
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.pause();
  let closed = false;
  socket.on('close', () => (closed = true));
  const big = request(1, 'echo', 'x'.repeat(900_000));
  for (let i = 0; i < 40; i++) {
    socket.write(big);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  socket.resume();
  await until('cut off', 5000, () => closed);
  t.pass();
});

test('many requests at once are all answered', async (t) => {
  const peer = await connectRpc(await serve(t));
  const answers = await Promise.all(Array.from({ length: 5000 }, (_, i) => peer.request('echo', i)));
  t.deepEqual(
    answers,
    Array.from({ length: 5000 }, (_, i) => i),
  );
  const slow = await Promise.all(Array.from({ length: 500 }, () => peer.request('slow', {})));
  t.is(slow.length, 500);
  peer.end();
});

test('a refused connection tells why', async (t) => {
  const path = join(temporary(t), 'rpc.sock');
  const server = await listenRpc(path, {
    accept: () => {
      throw new PolyError('EPERM', 'not yours');
    },
    maxConnections: 10,
  });
  t.teardown(() => server.close());
  const peer = await connectRpc(path);
  t.is(await failure(peer.request('echo', {})), 'EPERM not yours');
});
