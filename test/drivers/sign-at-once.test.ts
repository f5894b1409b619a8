/** Which requests a login makes, as real OpenSSH logs them. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ssh2 from 'ssh2';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { failOnLeaks } from '../support/leaks.ts';
import { requireSshd } from '../support/requirements.ts';
import { newKeyPair } from '../support/ssh-keys.ts';
import { closeSession, logIn } from '../support/ssh-login.ts';
import { type Sshd, startSshd } from '../support/sshd.ts';
import { waitUntil } from '../support/wait.ts';

failOnLeaks();

const { generateKeyPairSync } = ssh2.utils;
const KEYS = {
  ed25519: newKeyPair(),
  'ecdsa, nistp256': pairOf(generateKeyPairSync('ecdsa', { bits: 256 })),
  'ecdsa, nistp384': pairOf(generateKeyPairSync('ecdsa', { bits: 384 })),
  'ecdsa, nistp521': pairOf(generateKeyPairSync('ecdsa', { bits: 521 })),
  rsa: pairOf(generateKeyPairSync('rsa', { bits: 2048 })),
};

describe.skipIf(!requireSshd())('a login by private key', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-keys-'));
  let sshd: Sshd;

  beforeAll(async () => {
    chmodSync(folder, 0o755);
    const authorized = join(folder, 'authorized_keys');
    const lines = Object.values(KEYS).map(({ publicKey }) => `${publicKey}\n`);
    writeFileSync(authorized, lines.join(''), { mode: 0o644 });
    // At this level it logs a question ("Postponed publickey") as well as an answer.
    sshd = await startSshd([`AuthorizedKeysFile ${authorized}`, 'LogLevel VERBOSE']);
  });
  afterAll(async () => {
    await sshd.stop();
    rmSync(folder, { recursive: true });
  });

  /** What the server has logged of authentications since `from`, once `last` is among it. */
  async function attempts(from: number, last: string): Promise<string[]> {
    const read = (): string[] => {
      const lines = sshd.log().slice(from).split('\n');
      return lines.flatMap((line) => /^(Postponed|Accepted|Failed) publickey/.exec(line)?.[1] ?? []);
    };
    return await waitUntil(`sshd logs "${last}"`, () => (read().includes(last) ? read() : null));
  }

  test.each(Object.entries(KEYS))('of type %s is one request, signed', async (_type, { privateKey }) => {
    const from = sshd.log().length;
    await closeSession(await logIn({ ...sshd, privateKey }));
    expect(await attempts(from, 'Accepted')).toEqual(['Accepted']);
  });

  test('that the host does not know is refused after one request', async () => {
    const from = sshd.log().length;
    await expect(logIn({ ...sshd, privateKey: newKeyPair().privateKey })).rejects.toMatchObject({
      code: 'login_refused',
    });
    expect(await attempts(from, 'Failed')).toEqual(['Failed']);
  });
});

function pairOf({ private: privateKey, public: publicKey }: { private: string; public: string }) {
  return { privateKey, publicKey };
}
