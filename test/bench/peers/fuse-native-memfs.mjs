// An in-memory operations object for npm fuse-native, the peer that `memory` is measured against. Run with the package's
// parent directory as the working directory (it is not a dependency of this project):
//   node fuse-native-memfs.mjs DIR
import { createRequire } from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const Fuse = require('fuse-native');

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

let lastIno = 0;
function makeNode(mode) {
  const now = new Date();
  const isDirectory = (mode & S_IFMT) === S_IFDIR;
  return {
    children: isDirectory ? new Map() : null,
    bytes: Buffer.alloc(0),
    target: '',
    stat: {
      ino: ++lastIno,
      mode,
      nlink: isDirectory ? 2 : 1,
      uid: process.getuid(),
      gid: process.getgid(),
      size: 0,
      blocks: 0,
      mtime: now,
      atime: now,
      ctime: now,
    },
  };
}

const root = makeNode(S_IFDIR | 0o755);

function find(path) {
  let node = root;
  for (const name of path.split('/')) {
    if (name === '') continue;
    node = node.children?.get(name);
    if (!node) return undefined;
  }
  return node;
}

function split(path) {
  const at = path.lastIndexOf('/');
  return [find(path.slice(0, at)), path.slice(at + 1)];
}

function add(path, node, cb) {
  const [parent, name] = split(path);
  if (!parent?.children) return cb(Fuse.ENOENT);
  if (parent.children.has(name)) return cb(Fuse.EEXIST);
  parent.children.set(name, node);
  return cb(0);
}

function resize(node, size) {
  if (size > node.bytes.length) {
    const grown = Buffer.alloc(Math.max(size, node.bytes.length * 2));
    node.bytes.copy(grown);
    node.bytes = grown;
  } else if (size < node.stat.size) {
    node.bytes.fill(0, size, node.stat.size);
  }
  node.stat.size = size;
  node.stat.blocks = Math.ceil(size / 512);
  node.stat.mtime = node.stat.ctime = new Date();
}

function remove(path, cb) {
  const [parent, name] = split(path);
  const node = parent?.children?.get(name);
  if (!node) return cb(Fuse.ENOENT);
  if (node.children?.size) return cb(Fuse.ENOTEMPTY);
  parent.children.delete(name);
  node.stat.nlink -= node.children ? 2 : 1;
  return cb(0);
}

function update(path, cb, change) {
  const node = find(path);
  if (!node) return cb(Fuse.ENOENT);
  change(node);
  node.stat.ctime = new Date();
  return cb(0);
}

const files = new Map();
let lastFd = 0;
function open(node, cb) {
  if (!node) return cb(Fuse.ENOENT);
  files.set(++lastFd, node);
  return cb(0, lastFd);
}

const operations = {
  getattr(path, cb) {
    const node = find(path);
    return node ? cb(0, node.stat) : cb(Fuse.ENOENT);
  },
  fgetattr(path, fd, cb) {
    const node = files.get(fd) ?? find(path);
    return node ? cb(0, node.stat) : cb(Fuse.ENOENT);
  },
  readdir(path, cb) {
    const node = find(path);
    return node?.children ? cb(0, [...node.children.keys()]) : cb(Fuse.ENOENT);
  },
  mkdir: (path, mode, cb) => add(path, makeNode(S_IFDIR | (mode & 0o7777)), cb),
  mknod: (path, mode, _dev, cb) => add(path, makeNode(mode), cb),
  symlink(target, path, cb) {
    const node = makeNode(S_IFLNK | 0o777);
    node.target = target;
    node.stat.size = Buffer.byteLength(target);
    return add(path, node, cb);
  },
  readlink: (path, cb) => cb(0, find(path)?.target ?? ''),
  create(path, mode, cb) {
    const node = makeNode(S_IFREG | (mode & 0o7777));
    return add(path, node, (error) => (error ? cb(error) : open(node, cb)));
  },
  link(from, to, cb) {
    const node = find(from);
    if (!node) return cb(Fuse.ENOENT);
    return add(to, node, (error) => {
      if (!error) node.stat.nlink++;
      return cb(error);
    });
  },
  unlink: remove,
  rmdir: remove,
  rename(from, to, cb) {
    const [oldParent, oldName] = split(from);
    const node = oldParent?.children?.get(oldName);
    const [parent, name] = split(to);
    if (!node || !parent) return cb(Fuse.ENOENT);
    if (parent.children.get(name)?.children?.size) return cb(Fuse.ENOTEMPTY);
    oldParent.children.delete(oldName);
    parent.children.set(name, node);
    return cb(0);
  },
  open: (path, _flags, cb) => open(find(path), cb),
  read(_path, fd, buffer, length, position, cb) {
    const node = files.get(fd);
    return cb(node.bytes.copy(buffer, 0, position, Math.min(position + length, node.stat.size)));
  },
  write(_path, fd, buffer, length, position, cb) {
    const node = files.get(fd);
    if (position + length > node.stat.size) resize(node, position + length);
    buffer.copy(node.bytes, position, 0, length);
    return cb(length);
  },
  truncate: (path, size, cb) => update(path, cb, (node) => resize(node, size)),
  ftruncate(_path, fd, size, cb) {
    resize(files.get(fd), size);
    return cb(0);
  },
  chmod: (path, mode, cb) =>
    update(path, cb, ({ stat }) => (stat.mode = (stat.mode & S_IFMT) | (mode & 0o7777))),
  chown: (path, uid, gid, cb) =>
    update(path, cb, ({ stat }) => {
      // (uid_t)-1 means "leave it", chown(2); the binding hands it on unsigned.
      if (uid !== 0xffffffff && uid !== -1) stat.uid = uid;
      if (gid !== 0xffffffff && gid !== -1) stat.gid = gid;
    }),
  utimens: (path, atime, mtime, cb) =>
    update(path, cb, ({ stat }) => {
      stat.atime = new Date(atime);
      stat.mtime = new Date(mtime);
    }),
  flush: (_path, _fd, cb) => cb(0),
  fsync: (_path, _fd, _datasync, cb) => cb(0),
  release(_path, fd, cb) {
    files.delete(fd);
    return cb(0);
  },
  statfs: (_path, cb) =>
    cb(0, {
      bsize: 4096,
      frsize: 4096,
      blocks: 1 << 20,
      bfree: 1 << 20,
      bavail: 1 << 20,
      files: 1 << 20,
      ffree: 1 << 20,
      favail: 1 << 20,
      fsid: 1,
      flag: 0,
      namemax: 255,
    }),
};

// The same timeouts as every other system here (1 s) are libfuse 2's defaults. `big_writes` has no option of its own in
// fuse-native; without it every WRITE is 4 KiB, so it is slipped in behind fsname, for the peer's best performance.
const fuse = new Fuse(process.argv[2], operations, {
  allowOther: true,
  defaultPermissions: true,
  timeout: false, // no JS timer per request
  fsname: 'poly-bench-fuse-native,big_writes',
});
fuse.mount((error) => {
  if (error) {
    console.error(`fuse-native: ${error.message}`);
    process.exit(1);
  }
});
process.once('SIGTERM', () => {
  fuse.unmount(() => process.exit(0));
});
