/** A session by the gateway's own SSH code, straight to a port of this machine: no tunnel, no key push in between. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { openSshSession } from '../../src/drivers/ssh-session.ts';
import type { Session } from '../../src/sessions/session.ts';
import { ConnectTrace } from '../../src/sessions/trace.ts';

export interface Login {
  port: number;
  username: string;
  privateKey: string;
}

export async function logIn({ port, username, privateKey }: Login): Promise<Session> {
  const transport = connect({ host: '127.0.0.1', port, noDelay: true });
  await once(transport, 'connect');
  const login = {
    transport,
    username,
    key: { pem: privateKey },
    beforeAuth: async () => {},
    hostKeyTypes: null,
    verifyHostKey: async () => null,
  };
  return await openSshSession(login, {
    signal: AbortSignal.timeout(15_000),
    trace: new ConnectTrace(),
    // Nothing scarce is on this way.
    reserve: () => Promise.resolve(),
  });
}

export async function closeSession(session: Session): Promise<void> {
  session.close();
  await session.closed;
}
