/** The key pair of one connection. */
import ssh2 from 'ssh2';
import { expect, it } from 'vitest';
import { createLoginKey } from '../../src/drivers/login-key.ts';
import { isWireKey } from '../../src/drivers/wire-key.ts';

it('is readable every time, and long enough for EC2 Instance Connect', () => {
  // ssh2 makes one in 256 that is not.
  for (let count = 0; count < 1000; count += 1) {
    const { publicLine, privatePem } = createLoginKey();
    const [type = '', blob = ''] = publicLine.split(' ');
    expect([type, isWireKey(Buffer.from(blob, 'base64'), type)]).toEqual(['ssh-ed25519', true]);
    expect(ssh2.utils.parseKey(privatePem)).not.toBeInstanceOf(Error);
    expect(publicLine.length).toBeGreaterThan(80);
  }
});
