/** The key pair of one connection, in memory only. */
import ssh2 from 'ssh2';

export interface LoginKey {
  /** One line, longer than the 80 characters that EC2 Instance Connect asks for. */
  publicLine: string;
  /** OpenSSH PEM. */
  privatePem: string;
}

/**
 * ed25519: with RSA the only type that the instance side takes, and made in under a millisecond.
 * One pair in 256 comes out of ssh2 without the zero byte that its public key begins with, which nobody can read;
 * it is thrown away.
 */
export function createLoginKey(): LoginKey {
  for (;;) {
    const pair = ssh2.utils.generateKeyPairSync('ed25519', { comment: 'sallyport' });
    if (ssh2.utils.parseKey(pair.public) instanceof Error) continue;
    return { publicLine: pair.public, privatePem: pair.private };
  }
}
