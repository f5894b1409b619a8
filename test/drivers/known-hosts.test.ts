/** OpenSSH's file of known hosts, as OpenSSH itself reads and writes it. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { findKnownHost } from '../../src/drivers/known-hosts.ts';
import { requireProgram } from '../support/requirements.ts';
import { newKeyPair } from '../support/ssh-keys.ts';

const [KEY, OTHER] = [newKeyPair().publicKey, newKeyPair().publicKey];
const PIN = { type: 'ssh-ed25519', blob: KEY.split(' ')[1] };

describe('a line gives its key', () => {
  test.each([
    ['to a name', 'build.example', 'build.example', 22],
    ['to a name in other letters', 'Build.Example', 'build.EXAMPLE', 22],
    ['to each name of a list', 'a.example,b.example,10.0.0.1', 'b.example', 22],
    ['to an address', '2001:db8::1', '2001:db8::1', 22],
    ['to a port', '[build.example]:2222', 'build.example', 2222],
    ['to a pattern', '*.example', 'build.example', 22],
    ['to one letter each', 'build?.example', 'build7.example', 22],
    ['to a pattern with a port', '[*.example]:2222', 'build.example', 2222],
    ['to what a negation leaves', '!db.example,*.example', 'build.example', 22],
  ])('%s', (_what, hosts, host, port) => {
    expect(findKnownHost(`${hosts} ${KEY}\n`, host, port)).toEqual({ keys: [PIN], revoked: [], hasAuthority: false });
  });
});

describe('a line gives nothing', () => {
  test.each([
    ['to another name', `build.example ${KEY}`, 'build.example.org', 22],
    ['to another port', `[build.example]:2222 ${KEY}`, 'build.example', 2223],
    ['to port 22 when it names another', `[build.example]:2222 ${KEY}`, 'build.example', 22],
    ['to another port when it names none', `build.example ${KEY}`, 'build.example', 2222],
    ['to what it negates, whatever stands before', `*.example,!build.example ${KEY}`, 'build.example', 22],
    ['where a dot is no pattern', `buildxexample ${KEY}`, 'build.example', 22],
    ['when it is a comment', `#build.example ${KEY}`, 'build.example', 22],
    ['when its marker is unknown', `@trusted build.example ${KEY}`, 'build.example', 22],
    ['when its key is cut', `build.example ${KEY.slice(0, 40)}`, 'build.example', 22],
    [
      'when it says another type than the key',
      `build.example ${KEY.replace('ssh-ed25519', 'ssh-rsa')}`,
      'build.example',
      22,
    ],
    ['when it has no key', 'build.example', 'build.example', 22],
    ['when its hash is of another way', `|2|c2FsdA==|aGFzaA== ${KEY}`, 'build.example', 22],
  ])('%s', (_what, line, host, port) => {
    expect(findKnownHost(`${line}\n`, host, port)).toEqual({ keys: [], revoked: [], hasAuthority: false });
  });
});

test('a key that is revoked is told apart, and an authority is no key', () => {
  const text = `build.example ${KEY}\r\n@revoked\t* ${OTHER}\r\n@cert-authority *.example ${OTHER}\r\n`;
  expect(findKnownHost(text, 'build.example', 22)).toEqual({
    keys: [PIN],
    revoked: [{ type: 'ssh-ed25519', blob: OTHER.split(' ')[1] }],
    hasAuthority: true,
  });
});

describe.skipIf(!requireProgram('/usr/bin/ssh-keygen', 'openssh-client'))('names that ssh-keygen hashed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'known-hosts-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'known_hosts');
  writeFileSync(file, `build.example ${KEY}\n[build.example]:2222 ${OTHER}\n`);
  execFileSync('/usr/bin/ssh-keygen', ['-H', '-f', file], { stdio: 'ignore' });
  const text = readFileSync(file, 'utf8');

  test('are found, and found by nothing else', () => {
    expect(text).not.toContain('example');
    expect(findKnownHost(text, 'build.example', 22).keys).toEqual([PIN]);
    expect(findKnownHost(text, 'build.example', 2222).keys).toEqual([{ ...PIN, blob: OTHER.split(' ')[1] }]);
    expect(findKnownHost(text, 'other.example', 22).keys).toEqual([]);
  });
});
