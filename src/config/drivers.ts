/** The drivers that are off until a setting turns them on: ssh, docker. */
import { resolve } from 'node:path';
import { readKeyFile, type SshKey } from '../drivers/ssh-key.ts';
import type { Config } from './config.ts';
import { ANY_TEXT, type Kind } from './kinds.ts';
import { isOn, type Settings } from './settings.ts';

const UNIX_SOCKET: Kind<string> = {
  expected: 'unix:// and the absolute path of a socket: an engine of another machine is not supported',
  parse: (text) => /^unix:\/\/(\/.+)$/.exec(text)?.[1] ?? null,
};

export function readSsh(settings: Settings): Config['ssh'] {
  const key = readSshKey(settings);
  const knownHosts = settings.read('SALLYPORT_KNOWN_HOSTS', ANY_TEXT);
  if (knownHosts !== null) settings.readFile('SALLYPORT_KNOWN_HOSTS');
  const loopback = isOn(settings, 'SALLYPORT_SSH_LOOPBACK');
  if (key !== null) return { key, knownHosts: knownHosts === null ? null : resolve(knownHosts), loopback };
  const keyIsMeant = settings.isSet('SALLYPORT_SSH_KEY_FILE') || settings.isSet('SALLYPORT_SSH_AGENT');
  for (const name of ['SALLYPORT_KNOWN_HOSTS', 'SALLYPORT_SSH_LOOPBACK']) {
    if (keyIsMeant || !settings.isSet(name)) continue;
    settings.problems.push(`${name} is of use only together with SALLYPORT_SSH_KEY_FILE or SALLYPORT_SSH_AGENT=on.`);
  }
  return null;
}

function readSshKey(settings: Settings): SshKey | null {
  const byAgent = isOn(settings, 'SALLYPORT_SSH_AGENT');
  const path = settings.read('SALLYPORT_SSH_KEY_FILE', ANY_TEXT);
  if (byAgent && path !== null) {
    settings.problems.push(
      'SALLYPORT_SSH_KEY_FILE and SALLYPORT_SSH_AGENT are two places for one key: set one of them.',
    );
    return null;
  }
  if (byAgent) return readAgent(settings);
  if (path === null || settings.readFile('SALLYPORT_SSH_KEY_FILE') === null) return null;
  try {
    return { pem: readKeyFile(path) };
  } catch (error) {
    const why = error instanceof Error ? error.message : 'must be a private key';
    settings.problems.push(`SALLYPORT_SSH_KEY_FILE ${why}.`);
    return null;
  }
}

function readAgent(settings: Settings): SshKey | null {
  const agent = settings.read('SSH_AUTH_SOCK', ANY_TEXT);
  if (agent !== null) return { agent };
  if (!settings.isSet('SSH_AUTH_SOCK'))
    settings.problems.push('SALLYPORT_SSH_AGENT=on needs SSH_AUTH_SOCK, the path of the agent’s socket.');
  return null;
}

/** The engine's own variable, asked for only where the driver is on: a person's other tools may set it. */
export function readDocker(settings: Settings): Config['docker'] {
  if (!isOn(settings, 'SALLYPORT_DOCKER')) return null;
  return { socketPath: settings.read('DOCKER_HOST', UNIX_SOCKET) ?? '/var/run/docker.sock' };
}
