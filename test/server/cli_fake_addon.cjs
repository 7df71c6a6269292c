// Stands in for the native addon (POLY_ADDON) where the steps of a mount are tested without a native build: mounts are
// real FUSE mounts made with mount(8), nobody answers on them, and the keeper forgets what it is given.
'use strict';
const { spawnSync } = require('node:child_process');
const { appendFileSync, closeSync, openSync } = require('node:fs');

const note = (line) => appendFileSync(process.env.FAKE_ADDON_LOG, `${line}\n`);

function fail(code) {
  throw Object.assign(new Error(`${code}: stand-in`), { code, errno: 1, syscall: 'stand-in' });
}

function call(program, args, stdio = ['ignore', 'ignore', 'pipe']) {
  const { status, stderr } = spawnSync(program, args, { stdio, encoding: 'utf8' });
  if (status !== 0) fail(/busy/.test(stderr ?? '') ? 'EBUSY' : 'EINVAL');
}

module.exports = {
  openFuse: () => openSync('/dev/fuse', 'r+'),
  closeFd: (fd) => closeSync(fd),
  mountFuse(target, fd, source, flags, data) {
    note(`mount ${target} ${source} ${Object.keys(flags).join(',')}`);
    if (process.env.FAKE_ADDON_MOUNT_ERROR) fail(process.env.FAKE_ADDON_MOUNT_ERROR);
    const options = `fd=3,rootmode=40000,user_id=0,group_id=0,${data}`;
    call('mount', ['-i', '-t', 'fuse.poly', '-o', options, source, target], ['ignore', 'ignore', 'pipe', fd]);
  },
  umount(target, { lazy, force }) {
    note(`umount ${target}${lazy ? ' lazy' : ''}${force ? ' force' : ''}`);
    call('umount', ['-i', ...(lazy ? ['-l'] : []), ...(force ? ['-f'] : []), target]);
  },
  remount(target, flags) {
    note(`remount ${target} ${JSON.stringify(flags)}`);
    if (process.env.FAKE_ADDON_MOUNT_ERROR) fail(process.env.FAKE_ADDON_MOUNT_ERROR);
  },
  keeperConnect: () => ({
    put(name, fds) {
      note(`put ${name} ${fds.length}`);
    },
    close() {},
  }),
};
