/**
 * A stand-in for the native addon (server/native.ts), for tests of polyd and of the service host that need no kernel.
 * POLY_FAKE_DIR is where a test and the fake inside a service process meet:
 *   fail-instance-<id>    addInstance(id) throws the errno name in it
 *   ended-<id>            the instance ends: "unmounted" or "error"
 *   crash-at-start        createService throws
 *   spin                  setReadOnly does not return while it is there
 */
'use strict';
const fs = require('node:fs');
const path = require('node:path');

function nativeError(code, syscall) {
  return Object.assign(new Error(`${syscall}: ${code}`), { code, errno: 1, syscall });
}

function controlFile(name) {
  const dir = process.env.POLY_FAKE_DIR;
  if (!dir) return undefined;
  try {
    return fs.readFileSync(path.join(dir, name), 'utf8').trim();
  } catch {
    return undefined;
  }
}

class FakeTable {
  constructor(capacity) {
    this.capacity = capacity;
    this.map = new Map();
    this.fd = 0;
  }

  insert(entry) {
    if (this.map.has(entry.path)) throw nativeError('EEXIST', 'insert');
    if (this.map.size >= this.capacity) throw nativeError('ENOSPC', 'insert');
    this.map.set(entry.path, entry);
  }

  update(entry) {
    if (!this.map.has(entry.path)) throw nativeError('ENOENT', 'update');
    this.map.set(entry.path, entry);
  }

  remove(name) {
    if (!this.map.delete(name)) throw nativeError('ENOENT', 'remove');
  }

  lookup(name) {
    for (let prefix = name; ; prefix = path.posix.dirname(prefix)) {
      const entry = this.map.get(prefix);
      if (entry) return { ...entry, exact: prefix === name };
      if (prefix === '/') return null;
    }
  }

  entries() {
    return [...this.map.values()];
  }

  followMounts() {
    return { entries: 0, hidden: 0 };
  }
}

class FakeKeeper {
  constructor() {
    this.names = new Map();
  }

  put(name, fds) {
    this.names.set(name, fds);
  }

  get(prefix) {
    return this.list(prefix).map(({ name }) => ({ name, fds: [] }));
  }

  list(prefix) {
    return [...this.names]
      .filter(([name]) => name.startsWith(prefix))
      .map(([name, fds]) => ({ name, fds: fds.length }));
  }

  drop(name) {
    this.names.delete(name);
  }

  clear(prefix) {
    for (const name of this.names.keys()) if (name.startsWith(prefix)) this.names.delete(name);
  }

  scope(prefix) {
    this.names.set(`${prefix}state`, [0]);
    return fs.openSync('/dev/null');
  }

  ping() {
    return { pid: 0, fds: 0, names: this.names.size, dropped: 0 };
  }

  close() {}
}

/** Backends that take their time, and may lose something. */
async function leave() {
  await new Promise((resolve) => setTimeout(resolve, Number(controlFile('leave-ms') ?? 0)));
  const lost = controlFile('lost');
  return lost === undefined ? [] : [lost];
}

function createService({ onEvent }) {
  if (controlFile('crash-at-start') !== undefined) throw nativeError('EIO', 'createService');
  const libservices = new Set();
  const instances = new Set();
  setInterval(() => {
    for (const instance of instances) {
      const reason = controlFile(`ended-${instance}`);
      if (!reason) continue; // not there, or not written yet
      instances.delete(instance);
      onEvent({ type: 'instance-ended', instance, reason, message: 'by the test' });
    }
  }, 10);
  return {
    addLibservice({ id }) {
      if (libservices.has(id)) throw nativeError('EEXIST', 'addLibservice');
      libservices.add(id);
    },
    removeLibservice(id) {
      if (!libservices.delete(id)) throw nativeError('ENOENT', 'removeLibservice');
      return leave();
    },
    addInstance({ id, libservice }) {
      const code = controlFile(`fail-instance-${id}`);
      if (code !== undefined) throw nativeError(code, 'addInstance');
      if (!libservices.has(libservice)) throw nativeError('EINVAL', 'addInstance');
      if (instances.has(id)) throw nativeError('EEXIST', 'addInstance');
      instances.add(id);
    },
    removeInstance(id) {
      instances.delete(id);
    },
    setReadOnly() {
      while (controlFile('spin')); // never again an answer
    },
    handOver() {},
    stats() {
      const rows = [...instances].map((instance) => ({
        instance,
        nodes: 1,
        openFiles: 0,
        lendableFiles: 0,
        locks: 0,
        parkedLockWaits: 0,
        ops: [],
      }));
      return { threads: 0, threadsBusy: 0, requests: 0, instances: rows, clients: [] };
    },
    stop: leave,
  };
}

module.exports = {
  version: () => ({ abi: 1, ops: [] }),
  peerCredentials: () => ({ pid: 0, uid: process.geteuid(), gid: process.getegid() }),
  closeFd: (fd) => fs.closeSync(fd),
  calibrateCopy: () => undefined,
  sdNotify: () => false,
  fuseEnded: () => false,
  keeperConnect: () => new FakeKeeper(),
  mountTableCreate: (capacity) => new FakeTable(Number(process.env.POLY_FAKE_TABLE ?? capacity)),
  mountTableAttach: () => {
    throw nativeError('EINVAL', 'mountTableAttach');
  },
  watchMounts: () => ({ close() {} }),
  createService,
};
