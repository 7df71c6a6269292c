#!/usr/bin/env node
// The `poly` command. Everything is in server/cli; this file only finds it and says what to do when it is not built.
import { existsSync } from 'node:fs';

const main = new URL('../../dist/server/cli/main.js', import.meta.url);
if (existsSync(main)) {
  const { run } = await import(main.href);
  await run();
} else {
  process.stderr.write('poly: dist/server/cli/main.js: not built yet (run: npm run build)\n');
  process.exitCode = 2;
}
