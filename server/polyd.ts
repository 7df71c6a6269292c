/**
 * polyd: the supervisor of filesystem services. Runs in the foreground until SIGTERM, SIGINT or `poly stop`; mounts,
 * services and the keeper live on, and the next polyd takes them up.
 *
 *   node polyd.js            run directory: POLY_RUN_DIR, else /run/poly (root) or $XDG_RUNTIME_DIR/poly
 */
import { Daemon } from './daemon.ts';
import { errorCode, errorMessage, withContext } from './errors.ts';
import { lockRunDir } from './lock.ts';
import { openLog, type Logger } from './log.ts';
import { addonPath, native, type NativeAddon } from './native.ts';
import { ensureRunDir, runDir } from './rundir.ts';

function loadAddon(): NativeAddon {
  try {
    return native();
  } catch (error) {
    throw withContext(`cannot load ${addonPath} (npm run build makes it)`, error);
  }
}

/** sd_notify(3): half the watchdog's period, when systemd watches this process. */
function startWatchdog(addon: NativeAddon): void {
  const period = Number(process.env['WATCHDOG_USEC'] ?? 0);
  const pid = process.env['WATCHDOG_PID'];
  if (!(period > 0) || (pid !== undefined && pid !== String(process.pid))) return;
  setInterval(
    () => {
      addon.sdNotify('WATCHDOG=1');
    },
    Math.max(1, period / 2000),
  ).unref();
}

function surviveFaults(log: Logger): void {
  // A bug ends polyd with a line in its log; systemd or the next command starts it again, and it takes all up.
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, `internal error: ${errorMessage(error)}`);
    process.exit(70);
  });
}

async function main(): Promise<void> {
  process.title = 'polyd';
  const dir = runDir();
  ensureRunDir(dir);
  // A directory we stand in could never be unmounted.
  process.chdir('/');
  lockRunDir(dir);
  const log = openLog(dir);
  surviveFaults(log);
  try {
    await run(log);
  } catch (error) {
    log.fatal({ code: errorCode(error) }, errorMessage(error));
    throw error;
  }
}

async function run(log: Logger): Promise<void> {
  const dir = runDir();
  const addon = loadAddon();
  const end = (why: string) => {
    addon.sdNotify('STOPPING=1\nSTATUS=Stopping');
    log.info(why);
    daemon.close();
    process.exit(0);
  };
  const daemon = await Daemon.start({
    dir,
    addon,
    log,
    onStop: () => {
      end('stopped');
    },
  });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      end(signal);
    });
  }
  // The terminal that started us may go; we stay.
  process.on('SIGHUP', () => undefined);
  startWatchdog(addon);
  addon.calibrateCopy();
  addon.sdNotify(`READY=1\nSTATUS=Serving ${String(daemon.mountCount)} mounts`);
  daemon.onChange = () => addon.sdNotify(`STATUS=Serving ${String(daemon.mountCount)} mounts`);
  log.info({ runDir: dir.path, mounts: daemon.mountCount }, 'ready');
}

main().catch((error: unknown) => {
  console.error(`polyd: ${errorMessage(error)}`);
  process.exit(1);
});
