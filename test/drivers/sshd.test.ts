/** The SSH session against real OpenSSH servers. */
import { describe } from 'vitest';
import { openSshSession } from '../../src/drivers/ssh-session.ts';
import type { Session } from '../../src/sessions/session.ts';
import { ConnectTrace } from '../../src/sessions/trace.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { requireSshd, type Sshd, startSshd } from '../support/sshd.ts';
import { driverContract } from './contract.ts';

failOnLeaks();

async function login(sshd: Sshd, username = sshd.username): Promise<Session> {
  return await openSshSession(
    {
      transport: await sshd.dial(),
      username,
      privateKey: sshd.privateKey,
      beforeAuth: Promise.resolve(),
      hostKeyTypes: null,
      verifyHostKey: async () => null,
    },
    { signal: AbortSignal.timeout(10_000), trace: new ConnectTrace() },
  );
}

// Without an sshd there is nothing to run against; requireSshd says so aloud and fails where skips are forbidden.
describe.skipIf(!requireSshd())('OpenSSH', () => {
  driverContract('sshd', async () => {
    const sshd = await startSshd();
    const session = await login(sshd);
    return {
      session,
      async close() {
        session.close();
        await session.closed;
        await sshd.stop();
      },
    };
  });
});
