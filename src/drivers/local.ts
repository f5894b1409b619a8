/**
 * The driver for programs on the gateway's own machine, as the gateway's own user. Off unless an operator turns it on.
 *
 * Nothing separates such a program from the gateway: same user, same files, the gateway's memory and environment within
 * reach of /proc. It is for development and for a gateway that serves only the machine it runs on.
 * - A program starts as under sshd: a session of its own, real pipes, an environment of PATH, HOME and LANG and nothing of
 *   the gateway's.
 * - The only way to fail is `login` (another user is asked for) and `channel` (the machine cannot start a program).
 */
import { userInfo } from 'node:os';
import { SallyportError } from '../errors.ts';
import { deferred } from '../sessions/deferred.ts';
import type { Driver, Opening, Session } from '../sessions/session.ts';
import type { Workspace } from '../workspace.ts';
import type { Channel } from './channel.ts';
import { createChannelSession } from './channel-session.ts';
import { createLocalChannel } from './local-channel.ts';
import { createPipes } from './pipes.ts';

/** `shell`, `perl`: others than the machine's own, for tests. */
export function createLocalDriver({ shell = '/bin/sh', perl = 'perl' } = {}): Driver {
  async function open(workspace: Workspace, { signal, trace }: Opening): Promise<Session> {
    signal.throwIfAborted();
    const osUser = osUserOf(workspace);
    await trace.step('login', `user ${osUser}`, async () => requireOwnUser(osUser));
    return createLocalSession({ shell, perl });
  }

  return {
    name: 'local',
    key: (workspace) => [workspace.orgId, osUserOf(workspace)].join(' '),
    open,
    async probe(workspace, opening, until) {
      if (until === 'host_key') return null;
      return await open(workspace, opening);
    },
    inspect: async () => ({
      instance: null,
      health: { ok: null, detail: 'there are no checks of the gateway’s own machine', durationMs: null },
      clockOffsetMs: 0,
    }),
    readConsole: async () => {
      throw new SallyportError('invalid_request', 'a workspace of driver "local" has no serial console');
    },
  };
}

function osUserOf({ target }: Workspace): string {
  if (target.driver !== 'local')
    throw new Error(`bug: the local driver was given a workspace of driver ${target.driver}`);
  return target.osUser;
}

function requireOwnUser(osUser: string): void {
  const { username } = userInfo();
  if (osUser === username) return;
  throw new SallyportError('login_refused', `the gateway cannot run programs as ${osUser}, only as its own user`, {
    failedStep: 'login',
    outcome: 'unreachable',
    remedy: `Set os_user of the workspace to ${username}, the user that the gateway runs as.`,
  });
}

function createLocalSession({ shell, perl }: { shell: string; perl: string }): Session {
  const pipes = createPipes(perl);
  const channels = new Set<Channel>();
  const closed = deferred<Error | null>();
  return createChannelSession({
    async open(signal) {
      const piped = await pipes.open();
      const channel = createLocalChannel(shell, piped, () => channels.delete(channel));
      channels.add(channel);
      if (!signal.aborted) return channel;
      channel.close();
      throw signal.reason;
    },
    closed: closed.promise,
    close() {
      closed.resolve(null);
      for (const channel of [...channels]) channel.close();
      pipes.close();
    },
    unsupported: (what) =>
      new SallyportError('shell_unsupported', `the gateway's machine cannot run commands: ${what}`, {
        failedStep: 'channel',
        outcome: 'unreachable',
        remedy: 'Look for /bin/sh, and for limits on processes and open files.',
      }),
  });
}
