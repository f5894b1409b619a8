/**
 * Host-key trust for EC2 instances: console output → pins; a host must show a pinned key or is refused.
 *
 * A pin belongs to (region, instance id), never to an address or a name: the tunnel goes to an IP read a moment earlier,
 * and only the pin ties it to the instance that the key was pushed to. No mode looks at the console again once a pin is
 * stored, and none replaces a pin: a changed key is refused until an admin has said what is right.
 */
import { SallyportError } from '../errors.ts';
import type { Target } from '../workspace.ts';
import { type ConsoleKeys, parseConsoleKeys } from './console-keys.ts';
import { fingerprint, isWireKey, wireKeyType } from './wire-key.ts';

export interface HostKeyPin {
  /** SSH key type, e.g. `ssh-ed25519`. */
  type: string;
  /** Canonical base64 of the SSH wire key. */
  blob: string;
}

/** How the keys of a pin were verified. */
export type PinSource = 'console' | 'first-use' | 'admin';

export interface StoredPin extends HostKeyPin {
  source: PinSource;
}

export interface PinStore {
  get(region: string, instanceId: string): Promise<StoredPin[]>;
  /** Replaces the set. */
  put(region: string, instanceId: string, pins: readonly HostKeyPin[], source: PinSource): Promise<void>;
}

/** Where the pins of a host are kept. */
export interface PinPlace {
  region: string;
  instanceId: string;
}

/** For a host that is no instance: no region of AWS is called so. */
const NO_REGION = 'ssh';

/** Null: this kind of host has no host keys, or the workspace names no instance yet. */
export function pinPlaceOf(target: Target): PinPlace | null {
  if (target.driver === 'ssh') return { region: NO_REGION, instanceId: `${target.host}:${target.port}` };
  if (target.driver !== 'ec2' || target.instanceId === null) return null;
  return { region: target.region, instanceId: target.instanceId };
}

const KEY_LINE = /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521))[ \t]+([A-Za-z0-9+/]+={0,2})(?:[ \t].*)?$/;

/** One line of a public key file, with or without a comment. Null: it is not one complete key of the type it names. */
export function parseKeyLine(line: string): HostKeyPin | null {
  const [, type, blob] = KEY_LINE.exec(line.trim()) ?? [];
  if (type === undefined || blob === undefined) return null;
  const wire = Buffer.from(blob, 'base64');
  return wire.toString('base64') === blob && isWireKey(wire, type) ? { type, blob } : null;
}

/** As OpenSSH shows it. */
export function fingerprintOf({ blob }: HostKeyPin): string {
  return fingerprint(Buffer.from(blob, 'base64'));
}

export const HOST_KEY_MODES = ['console', 'first-use', 'pinned'] as const;
export type HostKeyMode = (typeof HOST_KEY_MODES)[number];

/** What a mode believes: a pin taken on first use does not become better when the mode gets stricter. */
const BELIEVED: Readonly<Record<HostKeyMode, readonly PinSource[]>> = {
  console: ['console', 'admin'],
  'first-use': ['console', 'admin', 'first-use'],
  pinned: ['admin'],
};

/** An instance younger than this may not have printed its keys yet. */
const BOOT_MS = 5 * 60_000;

export interface HostTrust {
  /** Key types to negotiate: a host that answered with a type without a pin could not be told from a foreign one. Null: any. */
  types: readonly string[] | null;
  /** Null accepts the host. */
  verify(wireKey: Buffer): Promise<SallyportError | null>;
  /** To be called after the login: what was seen for the first time is pinned now, when the host took our key. */
  confirm(): Promise<void>;
}

export interface TrustOptions {
  mode: HostKeyMode;
  pins: PinStore;
  region: string;
  instanceId: string;
  launchedAt: Date | null;
  /** Called only where the console decides; null: nothing was posted. */
  readConsole(options: { latest: boolean }): Promise<Buffer | null>;
}

/** Rejects with `host_key_mismatch` where nothing says which key is right. Console keys are stored before it resolves. */
export async function establishTrust(options: TrustOptions): Promise<HostTrust> {
  const { mode, pins, region, instanceId } = options;
  const believed = (await pins.get(region, instanceId)).filter((pin) => BELIEVED[mode].includes(pin.source));
  if (believed.length > 0) return trustPins(believed);
  switch (mode) {
    case 'pinned':
      throw untrusted('no host key of this instance was stored by an admin', {
        remedy: 'an admin stores the host keys of the instance (/etc/ssh/ssh_host_*_key.pub)',
      });
    case 'first-use':
      return trustFirstUse(pins, region, instanceId);
    case 'console': {
      const keys = await readConsoleKeys(options);
      await pins.put(region, instanceId, keys, 'console');
      return trustPins(keys);
    }
    default:
      return mode satisfies never;
  }
}

function trustPins(pins: readonly HostKeyPin[]): HostTrust {
  return {
    types: [...new Set(pins.map((pin) => pin.type))],
    verify: async (wireKey) => compare(pins, wireKey),
    confirm: async () => {},
  };
}

function trustFirstUse(store: PinStore, region: string, instanceId: string): HostTrust {
  let seen: Buffer | null = null;
  return {
    types: null,
    async verify(wireKey) {
      seen = wireKey;
      return null;
    },
    async confirm() {
      const type = seen === null ? null : wireKeyType(seen);
      if (seen === null || type === null) throw new Error('bug: a login without a host key');
      // Two first connections at once: the one that pinned first decides.
      const stored = await store.get(region, instanceId);
      const refusal = stored.length === 0 ? null : compare(stored, seen);
      if (refusal !== null) throw refusal;
      if (stored.length === 0)
        await store.put(region, instanceId, [{ type, blob: seen.toString('base64') }], 'first-use');
    },
  };
}

function compare(pins: readonly HostKeyPin[], wireKey: Buffer): SallyportError | null {
  const type = wireKeyType(wireKey);
  const blob = wireKey.toString('base64');
  if (pins.some((pin) => pin.type === type && pin.blob === blob)) return null;
  const expected = pins
    .filter((pin) => type === null || pin.type === type || !pins.some((other) => other.type === type))
    .map((pin) => `${pin.type} ${fingerprint(Buffer.from(pin.blob, 'base64'))}`);
  return untrusted(
    `the host key has changed: pinned is ${expected.join(' or ')}, the host shows ${type ?? 'a broken key'} ${fingerprint(wireKey)}`,
    {
      remedy:
        'if the root volume was replaced or the keys were renewed on purpose, an admin stores the new host keys; if not, another machine answers at this address',
    },
  );
}

/** The current buffer first; what was posted at boot may still hold a block that has left it since. */
async function readConsoleKeys(options: TrustOptions): Promise<HostKeyPin[]> {
  const read = async (latest: boolean): Promise<ConsoleKeys | null> => {
    const output = await options.readConsole({ latest });
    return output === null ? null : parseConsoleKeys(output);
  };
  const now = await read(true);
  if (now?.state === 'ok') return now.keys;
  if (now?.state === 'conflict') throw conflict(now.keys);
  const posted = await read(false);
  if (posted?.state === 'ok') return posted.keys;
  if (posted?.state === 'conflict') throw conflict(posted.keys);
  throw absent([now?.state, posted?.state], options.launchedAt);
}

function conflict(keys: readonly HostKeyPin[]): SallyportError {
  const shown = keys.map((key) => `${key.type} ${fingerprint(Buffer.from(key.blob, 'base64'))}`).join(', ');
  return untrusted(`the console output is in conflict with itself: different host keys of one type (${shown})`, {
    remedy: 'an admin compares them with the keys on the instance and stores the right ones',
  });
}

function absent(states: readonly (ConsoleKeys['state'] | undefined)[], launchedAt: Date | null): SallyportError {
  const booting = launchedAt !== null && Date.now() - launchedAt.getTime() < BOOT_MS;
  return untrusted(`${absenceText(states)}, so that nothing says which host key is right`, {
    retryable: booting || states.includes('partial'),
    remedy: booting
      ? 'the instance was launched less than five minutes ago: try again when it has booted'
      : 'cloud-init prints the keys once, at first boot: an admin stores the host keys of the instance, or SALLYPORT_HOST_KEYS=first-use pins the key that is shown first',
  });
}

function absenceText(states: readonly (ConsoleKeys['state'] | undefined)[]): string {
  if (states.includes('partial')) return 'the block of host keys in the console output is partial';
  if (states.includes('empty')) return 'the block of host keys in the console output is empty';
  if (states.includes('none')) return 'the console output has no block of host keys (none)';
  return 'the console output is empty';
}

function untrusted(message: string, details: { remedy: string; retryable?: boolean }): SallyportError {
  return new SallyportError('host_key_mismatch', message, { failedStep: 'host_key', ...details });
}
