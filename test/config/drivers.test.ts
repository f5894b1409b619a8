import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readConfig } from '../../src/config/config.ts';
import { newKeyPair } from '../support/ssh-keys.ts';
import { problems, withFolder } from './settings.ts';

const { folder, file } = withFolder();
const SSH_KEY = newKeyPair().privateKey;
const SSH_KEY_FILE = file('ssh-key', SSH_KEY);
const KNOWN_HOSTS_FILE = file('known-hosts', '');

describe('the key for hosts', () => {
  test('may be with an agent', () => {
    const { ssh } = readConfig({ SALLYPORT_SSH_AGENT: 'on', SSH_AUTH_SOCK: '/run/agent' });
    expect(ssh).toEqual({ key: { agent: '/run/agent' }, knownHosts: null, loopback: false });
  });

  test.each<[string, NodeJS.ProcessEnv, string]>([
    ['has one place', { SALLYPORT_SSH_AGENT: 'on', SALLYPORT_SSH_KEY_FILE: SSH_KEY_FILE }, 'set one of them'],
    ['is nowhere without the agent’s socket', { SALLYPORT_SSH_AGENT: 'on' }, 'needs SSH_AUTH_SOCK'],
    ['is its owner’s only', { SALLYPORT_SSH_KEY_FILE: file('open.pem', SSH_KEY, 0o644) }, 'chmod 600'],
    ['is needed by known hosts', { SALLYPORT_KNOWN_HOSTS: KNOWN_HOSTS_FILE }, 'only together with'],
    ['is needed by loopback', { SALLYPORT_SSH_LOOPBACK: 'on' }, 'only together with'],
    [
      'comes with known hosts that can be read',
      { SALLYPORT_SSH_KEY_FILE: SSH_KEY_FILE, SALLYPORT_KNOWN_HOSTS: join(folder, 'missing') },
      'SALLYPORT_KNOWN_HOSTS must name a file that can be read',
    ],
  ])('%s', (_what, env, text) => {
    expect(problems(env)).toEqual([expect.stringContaining(text)]);
  });
});

describe('the container engine', () => {
  test('has its socket at the usual place', () => {
    expect(readConfig({ SALLYPORT_DOCKER: 'on' }).docker).toEqual({ socketPath: '/var/run/docker.sock' });
  });

  test('of another machine is refused, and asked about only where the driver is on', () => {
    const env = { DOCKER_HOST: 'tcp://10.0.0.1:2375' };
    expect(problems({ ...env, SALLYPORT_DOCKER: 'on' })).toEqual([expect.stringMatching(/^DOCKER_HOST must be unix:/)]);
    expect(readConfig(env).docker).toBeNull();
  });
});
