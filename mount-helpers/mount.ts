/** mount.poly: called by mount(8) for `-t poly`, `-t fuse.poly` and fstab lines of these types. */
import { absoluteSpec, mountFilesystem, mountPoint } from '../server/cli/mount_flow.ts';
import { usage } from '../server/cli/errors.ts';
import { parseOptionString, parseSettings } from '../server/options.ts';
import type { MountOptions } from '../server/protocol.ts';
import { ownOptions, parseArguments, runHelper } from './helper.ts';

const FORM = 'mount.poly SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]';

async function main(args: string[]): Promise<void> {
  const { operands, flags, options: lists, namespace } = parseArguments(args, 'sfnvrw', FORM);
  const [spec, directory] = operands;
  if (spec === undefined || directory === undefined || operands.length > 2) throw usage(`usage: ${FORM}`);
  const { remount, ...parsed } = parseOptionString(ownOptions(lists.join(',')));
  // mount(8) writes "rw" where nobody asked for it: it must not undo a configured "ro".
  if (remount === undefined) delete parsed['rw'];
  const options = flags.has('s') ? knownOptions(parsed) : parsed;
  parseSettings(options);
  const request = { program: 'mount.poly', spec: plainSpec(spec), directory, options, namespace };
  let done: string;
  if (flags.has('f')) {
    if (namespace === undefined) mountPoint(directory);
    absoluteSpec(request.spec);
    done = 'would be mounted';
  } else if (remount !== undefined) {
    const { remountFilesystem } = await import('../server/cli/remount_flow.ts');
    await remountFilesystem(request);
    done = 'remounted';
  } else {
    const { outcome, service } = await mountFilesystem(request);
    done = `mounted by service ${String(service)} (${outcome})`;
  }
  if (flags.has('v')) process.stdout.write(`mount.poly: ${spec} on ${directory} ${done}\n`);
}

/** The prefix of old fstab lines, "poly#local:/srv", which mount.fuse(8) uses for the type. */
function plainSpec(spec: string): string {
  return spec.startsWith('poly#') ? spec.slice('poly#'.length) : spec;
}

/** -s: options we do not know are no reason to fail. */
function knownOptions(options: MountOptions): MountOptions {
  const isKnown = (key: string, value: string | true): boolean => {
    try {
      parseSettings({ [key]: value });
      return true;
    } catch {
      return false;
    }
  };
  return Object.fromEntries(Object.entries(options).filter(([key, value]) => isKnown(key, value)));
}

await runHelper('mount.poly', main);
