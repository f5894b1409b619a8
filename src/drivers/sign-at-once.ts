/**
 * Login by public key in one request (RFC 4252, section 7): signed at once, instead of asking first whether the key would do.
 *
 * The question costs a round trip, and OpenSSH lets 5 to 9 ms pass after each request before it reads the next. It is worth
 * that to whoever has many keys or must be asked for each signature; we have one. ssh2 always asks, so its private call is
 * put in front of here. ssh2 is pinned to one version for this; a missing member throws at the first login, and
 * test/drivers/sign-at-once.test.ts notices first.
 */
import type { Client, ParsedKey } from 'ssh2';

type Sign = (data: Buffer, send: (signature: Buffer) => void) => void;

interface PrivateClient {
  _protocol: { authPK(username: string, key: ParsedKey, algorithm: string | undefined, sign?: Sign): void };
}

/** As ssh2 names them to a key of type ssh-rsa; every other key knows its own. */
const HASHES: Partial<Record<string, string>> = { 'rsa-sha2-256': 'sha256', 'rsa-sha2-512': 'sha512' };

/**
 * To be called after `client.connect`, for a client that logs in with a private key and not with an agent. A key that
 * cannot sign is told as ssh2 tells it: an `error` of level `client-authentication`.
 */
export function signAtOnce(client: Client): void {
  const protocol = (client as unknown as PrivateClient)._protocol;
  const authPK = protocol.authPK.bind(protocol);
  protocol.authPK = (username, key, algorithm, sign) => {
    const signNow: Sign = (data, send) => {
      const signature = key.sign(data, HASHES[algorithm ?? '']);
      if (signature instanceof Error)
        client.emit('error', Object.assign(signature, { level: 'client-authentication' }));
      else send(signature);
    };
    authPK(username, key, algorithm, sign ?? signNow);
  };
}
