/** polyd under systemd: sd_notify(3) through a socket of ours, and the watchdog. */
import test from 'ava';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { temporary, until } from './helpers.ts';
import { missing, realSite } from './real.ts';

/** Node has no datagram unix sockets; this one prints what it gets. */
const LISTENER = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('listening', flush=True)
while True: print(s.recv(4096).decode().replace('\\n', ' | '), flush=True)`;

const reason = missing();
(reason === undefined ? test.serial : test.serial.skip)(
  'READY, STATUS, WATCHDOG and STOPPING reach systemd',
  async (t) => {
    const socket = join(temporary(t), 'notify');
    const listener = spawn('python3', ['-c', LISTENER, socket], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.teardown(() => listener.kill());
    let text = '';
    listener.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
    await until('listening', 5000, () => text.includes('listening'));
    const { site } = realSite(t, { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '200000' });
    await site.start();
    await until('READY', 5000, () => text.includes('READY=1'));
    t.regex(text, /READY=1 \| STATUS=Serving 0 mounts/);
    await until('WATCHDOG', 5000, () => text.includes('WATCHDOG=1'));
    t.false(text.includes('STOPPING'));
    await site.end('SIGTERM');
    await until('STOPPING', 5000, () => text.includes('STOPPING=1'));
    t.is(site.child?.exitCode, 0);
  },
);
