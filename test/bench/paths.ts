/** Where things are. This file runs as dist/test/bench/paths.js; peers in JavaScript are run from their source. */
import { join, resolve } from 'node:path';

export const repository = resolve(import.meta.dirname, '../../..');
export const sourceDir = join(repository, 'test/bench');

/** POLY_BUILD_DIR names another build tree than build/native. */
const buildDir = resolve(process.env['POLY_BUILD_DIR'] ?? join(repository, 'build/native'));

/** A program of test/bench/CMakeLists.txt. */
export function program(name: string): string {
  return join(buildDir, 'test/bench', name);
}

/** As `poly run` finds it. */
export const preloadLibrary = process.env['POLY_PRELOAD'] ?? join(buildDir, 'preload/libpoly-preload.so');
