/**
 * Host-key trust for hosts that no platform vouches for: what the operator or an admin declared, else what was pinned.
 *
 * Declared are the keys in the file of known hosts (read at every connection) and those an admin stored; where there are
 * any, nothing else counts. Without them only SALLYPORT_HOST_KEYS=first-use takes the key that is shown first: there is no
 * console to read, so the mode `console` refuses here like `pinned`. Host certificates are not supported, because ssh2
 * negotiates none; a host that the file gives to an authority alone is refused, in every mode.
 */
import { readFile } from 'node:fs/promises';
import { SallyportError } from '../errors.ts';
import {
  establishTrust,
  fingerprintOf,
  type HostKeyMode,
  type HostKeyPin,
  type HostTrust,
  type PinPlace,
  type PinStore,
} from './host-keys.ts';
import { findKnownHost, type KnownHost } from './known-hosts.ts';
import { fingerprint, wireKeyType } from './wire-key.ts';

export interface SshTrustOptions {
  mode: HostKeyMode;
  pins: PinStore;
  place: PinPlace;
  host: string;
  port: number;
  /** Path, or null. */
  knownHosts: string | null;
}

const HOW_TO_STORE =
  'an admin stores the right keys (/etc/ssh/ssh_host_*_key.pub on the host) with PUT /workspaces/:id/host-keys, or the operator names an OpenSSH file of known hosts in SALLYPORT_KNOWN_HOSTS';

/** Rejects with `host_key_mismatch` where no key could be right. */
export async function establishSshTrust(options: SshTrustOptions): Promise<HostTrust> {
  const { mode, pins, place } = options;
  const known = await readKnownHost(options);
  const stored = await pins.get(place.region, place.instanceId);
  const declared = [...known.keys, ...stored.filter(({ source }) => source === 'admin')];
  if (declared.length === 0 && known.hasAuthority) throw onlyAuthority();
  if (declared.length === 0 && mode !== 'first-use') return trustNobody();
  const trust = await establishTrust({
    ...place,
    mode: mode === 'first-use' ? 'first-use' : 'pinned',
    pins: declared.length === 0 ? pins : { ...pins, get: async () => asDeclared(declared) },
    launchedAt: null,
    readConsole: async () => null,
  });
  return withoutRevoked(trust, known.revoked);
}

async function readKnownHost({ knownHosts, host, port }: SshTrustOptions): Promise<KnownHost> {
  if (knownHosts === null) return { keys: [], revoked: [], hasAuthority: false };
  try {
    return findKnownHost(await readFile(knownHosts, 'utf8'), host, port);
  } catch (cause) {
    throw untrusted('the file of known hosts cannot be read', {
      remedy: 'the operator looks at the file that SALLYPORT_KNOWN_HOSTS names',
      cause,
    });
  }
}

function asDeclared(keys: readonly HostKeyPin[]) {
  return keys.map(({ type, blob }) => ({ type, blob, source: 'admin' as const }));
}

/** Shows what the host shows, so that it can be compared; accepts nothing. */
function trustNobody(): HostTrust {
  return {
    types: null,
    verify: async (wireKey) =>
      untrusted(
        `nobody has said which host key is right; the host shows ${wireKeyType(wireKey) ?? 'a broken key'} ${fingerprint(wireKey)}`,
        { remedy: `after comparing it on the host, ${HOW_TO_STORE}` },
      ),
    confirm: async () => {},
  };
}

function withoutRevoked(trust: HostTrust, revoked: readonly HostKeyPin[]): HostTrust {
  return {
    ...trust,
    async verify(wireKey) {
      const shown = { type: wireKeyType(wireKey) ?? '', blob: wireKey.toString('base64') };
      if (!revoked.some(({ blob }) => blob === shown.blob)) return await trust.verify(wireKey);
      return untrusted(`the host shows a revoked key, ${shown.type} ${fingerprintOf(shown)}`, {
        remedy: 'the host needs new host keys: whoever has this one can pretend to be it',
      });
    },
  };
}

function onlyAuthority(): SallyportError {
  return untrusted(
    'the file of known hosts trusts an authority for this host, and host certificates are not supported',
    { remedy: HOW_TO_STORE },
  );
}

function untrusted(message: string, details: { remedy: string; cause?: unknown }): SallyportError {
  return new SallyportError('host_key_mismatch', message, {
    failedStep: 'host_key',
    outcome: 'unreachable',
    ...details,
  });
}
