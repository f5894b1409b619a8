/** The SSH session against real OpenSSH servers. */
import { randomUUID } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import type { Process, Session } from '../../src/sessions/session.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { killCarrying } from '../support/processes.ts';
import { requireSshd } from '../support/requirements.ts';
import { closeSession, logIn } from '../support/ssh-login.ts';
import { type Sshd, startSshd } from '../support/sshd.ts';
import { within } from '../support/wait.ts';
import { driverContract } from './contract.ts';

failOnLeaks();

// Without an sshd there is nothing to run against; requireSshd says so aloud and fails where skips are forbidden.
describe.skipIf(!requireSshd())('OpenSSH', () => {
  driverContract('sshd', async () => {
    const sshd = await startSshd();
    const session = await logIn(sshd);
    return {
      session,
      async close() {
        await closeSession(session);
        await sshd.stop();
      },
    };
  });

  describe('a host that is set up in its own way', () => {
    const opened: { sshd: Sshd; session: Session }[] = [];

    async function hostWith(...config: string[]): Promise<Session> {
      const sshd = await startSshd(config);
      const session = await logIn(sshd);
      opened.push({ sshd, session });
      return session;
    }

    const execId = randomUUID();

    afterEach(async () => {
      killCarrying(execId);
      for (const { sshd, session } of opened.splice(0)) {
        await closeSession(session);
        await sshd.stop();
      }
    });

    function start(session: Session, ...argv: [string, ...string[]]): Promise<Process> {
      return within(
        'the start',
        session.start(
          { execId, argv, env: {}, cwd: null, stdin: null, fixedPath: false },
          { signal: AbortSignal.timeout(10_000), committed: Promise.resolve() },
        ),
      );
    }

    test.each([
      ['/bin/true', 'which says nothing and succeeds'],
      ['/bin/false', 'which says nothing and fails'],
      ['echo This account is not for commands.', 'which prints a line'],
      ['cat', 'which gives back what it is sent'],
      ['/usr/sbin/nologin', 'which refuses in words'],
    ])('ForceCommand %s, %s, is shell_unsupported', async (command) => {
      const session = await hostWith(`ForceCommand ${command}`);
      await expect(start(session, 'true')).rejects.toMatchObject({
        code: 'shell_unsupported',
        details: { failedStep: 'channel' },
      });
    });

    test('a host that takes two channels has room for one program and its kill, and goes on after it refused a third', async () => {
      const session = await hostWith('MaxSessions 2');
      const first = await start(session, 'sleep', '600');
      const others = await Promise.allSettled([start(session, 'true'), start(session, 'true')]);
      expect(others.map(({ status }) => status)).toContain('rejected');
      expect(session.capacity).toBe(1);
      for (const other of others) if (other.status === 'fulfilled') other.value.release();
      expect(await first.kill()).toEqual([]);
    });

    test('a server that dies tells every program and the session', async () => {
      const session = await hostWith();
      const program = await start(session, 'sleep', '600');
      opened[0]?.sshd.cutConnections();
      expect(await within('the exit', program.exit)).toMatchObject({
        kind: 'lost',
        error: { code: 'connection_lost' },
      });
      await within('the session to notice', session.closed);
      await expect(start(session, 'true')).rejects.toMatchObject({ code: 'connection_lost' });
    });
  });
});
