/**
 * SSH login over a transport that somebody else opened, and the Session on it. Shared by the drivers ec2 and ssh.
 *
 * It knows nothing of AWS. The steps `banner`, `host_key` and `login` are written into the opening's trace; the key may
 * still be on its way to the host while the key exchange runs, only authentication waits for it (`beforeAuth`).
 * `host_key` ends when the host has signed with its key, not already when it has shown one.
 */
import type { Duplex } from 'node:stream';
import { Client, type ConnectConfig, type ServerHostKeyAlgorithm } from 'ssh2';
import { SallyportError, type Step } from '../errors.ts';
import { SSH_KEEPALIVE_MAX_MISSED, SSH_KEEPALIVE_MS } from '../limits.ts';
import { deferred } from '../sessions/deferred.ts';
import type { Opening, Session } from '../sessions/session.ts';
import { BOOTSTRAP, LOGIN_SHELL } from './bootstrap.ts';
import type { Channel, ChannelEvents, LoginShell } from './channel.ts';
import { createChannelSession } from './channel-session.ts';
import { signAtOnce } from './sign-at-once.ts';
import type { SshChannel } from './ssh-channel.ts';
import { createSshChannels } from './ssh-channels.ts';
import type { SshKey } from './ssh-key.ts';

export interface SshLogin {
  /** Already connected; belongs to the session from now on and is destroyed with it. */
  transport: Duplex;
  username: string;
  key: SshKey;
  /**
   * Called once, when the host has proved its key. Authentication waits for it (the key push); its rejection rejects the
   * opening, before anything of the login was sent.
   */
  beforeAuth(): Promise<void>;
  /** Only these host key types are offered, e.g. `ssh-ed25519`, `ssh-rsa`; null: every type we accept. */
  hostKeyTypes: readonly string[] | null;
  /** Gets the host key as SSH wire bytes; resolves null to accept it, or the error to refuse with. */
  verifyHostKey(wireKey: Buffer): Promise<SallyportError | null>;
  /** Whether a channel is kept open ahead of the next exec; absent: it is. */
  channelAhead?: boolean;
}

/**
 * Explicit lists: the library's own still hold SHA-1. AES-GCM first, it is the fastest with native crypto. Nothing that
 * Terrapin (CVE-2023-48795) breaks is offered, no ChaCha20-Poly1305 and no CBC, so it cannot be agreed on with a host
 * that lacks strict key exchange.
 */
const ALGORITHMS = {
  kex: [
    'curve25519-sha256',
    'curve25519-sha256@libssh.org',
    'ecdh-sha2-nistp256',
    'ecdh-sha2-nistp384',
    'diffie-hellman-group14-sha256',
  ],
  cipher: ['aes128-gcm@openssh.com', 'aes256-gcm@openssh.com', 'aes128-ctr', 'aes256-ctr'],
  hmac: ['hmac-sha2-256-etm@openssh.com', 'hmac-sha2-512-etm@openssh.com', 'hmac-sha2-256', 'hmac-sha2-512'],
  compress: ['none'],
} satisfies ConnectConfig['algorithms'];

const HOST_KEY_ALGORITHMS: Record<string, ServerHostKeyAlgorithm[]> = {
  'ssh-ed25519': ['ssh-ed25519'],
  'ecdsa-sha2-nistp256': ['ecdsa-sha2-nistp256'],
  'ecdsa-sha2-nistp384': ['ecdsa-sha2-nistp384'],
  'ecdsa-sha2-nistp521': ['ecdsa-sha2-nistp521'],
  'ssh-rsa': ['rsa-sha2-512', 'rsa-sha2-256'],
};

/**
 * Rejects with a SallyportError whose `failedStep` is banner (`host_unreachable`), host_key (`host_key_mismatch`) or
 * login (`login_refused`), with the error of `beforeAuth`, or with the reason of an aborted `opening.signal`. On
 * rejection the transport is destroyed.
 */
export async function openSshSession(login: SshLogin, opening: Opening): Promise<Session> {
  const client = new Client();
  const closed = new Promise<Error | null>((resolve) => {
    client.once('close', () => resolve(null));
    client.on('error', resolve);
  });
  try {
    await connect(client, login, opening);
    const channels = createSshChannels(client, { ahead: login.channelAhead ?? true });
    const join = joinWrites(login.transport);
    void closed.then(channels.stop);
    const shell: LoginShell = { kind: 'unknown' };
    return createChannelSession({
      open: async (signal) => {
        join();
        return bootstrapChannel(await channels.open(signal), shell, join);
      },
      closed,
      close: () => client.end(),
      unsupported,
    });
  } catch (error) {
    client.destroy();
    login.transport.destroy();
    throw error;
  }
}

async function connect(client: Client, login: SshLogin, { signal, trace }: Opening): Promise<void> {
  let step: Step = 'banner';
  let refusal: unknown = null;
  const failed = new Promise<never>((_, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    client.on('error', (error) => reject(refusal ?? explain(step, error)));
    const onClose = (): void => reject(refusal ?? explain(step, new Error('the connection was closed')));
    client.on('close', onClose);
    // A host that hung up while the caller did something else: nobody would tell again.
    if (login.transport.destroyed) onClose();
    if (signal.aborted) onAbort();
  });
  failed.catch(() => undefined); // Whoever waits for a step below sees it; after `ready` nobody has to.

  const bannerSeen = new Promise<void>((resolve) => login.transport.once('data', () => resolve()));
  const hostKeySeen = deferred();
  client.once('handshake', () => hostKeySeen.resolve());
  const mayLogIn = deferred();
  const ready = new Promise<void>((resolve) => client.once('ready', resolve));
  client.connect({
    sock: login.transport,
    username: login.username,
    ident: 'sallyport',
    readyTimeout: 0,
    keepaliveInterval: SSH_KEEPALIVE_MS,
    keepaliveCountMax: SSH_KEEPALIVE_MAX_MISSED,
    algorithms: { ...ALGORITHMS, serverHostKey: offeredHostKeys(login.hostKeyTypes) },
    hostVerifier: (wireKey: Buffer, verify: (accept: boolean) => void) => {
      login.verifyHostKey(wireKey).then(
        (error) => {
          refusal = error;
          verify(error === null);
        },
        (error: unknown) => {
          refusal = error;
          verify(false);
        },
      );
    },
    authHandler: publicKeyOnce(login, mayLogIn.promise),
  } as ConnectConfig);
  // An agent may ask somebody before it signs.
  if ('pem' in login.key) signAtOnce(client);

  await trace.step('banner', undefined, () => Promise.race([bannerSeen, failed]));
  step = 'host_key';
  await trace.step('host_key', undefined, () => Promise.race([hostKeySeen.promise, failed]));
  await Promise.race([login.beforeAuth(), failed]);
  step = 'login';
  mayLogIn.resolve();
  await trace.step('login', `user ${login.username}`, () => Promise.race([ready, failed]));
}

/** Our key, once, as soon as the host has it; no `none`: sshd counts and delays every attempt. */
function publicKeyOnce(
  login: SshLogin,
  mayLogIn: Promise<void>,
): (left: unknown, partial: unknown, next: (method: unknown) => void) => void {
  let tried = false;
  return (_left, _partial, next) => {
    if (tried) return next(false);
    tried = true;
    void mayLogIn.then(() => next({ username: login.username, ...methodOf(login.key) }));
  };
}

function methodOf(key: SshKey): { type: 'publickey'; key: string } | { type: 'agent'; agent: string } {
  return 'pem' in key ? { type: 'publickey', key: key.pem } : { type: 'agent', agent: key.agent };
}

/** In our order of preference, whatever the order of the pins. */
function offeredHostKeys(types: readonly string[] | null): ServerHostKeyAlgorithm[] {
  return Object.entries(HOST_KEY_ALGORITHMS)
    .filter(([type]) => types === null || types.includes(type))
    .flatMap(([, algorithms]) => algorithms);
}

/** An ssh2 error by its structured level, never by its text. */
function explain(step: Step, error: Error & { level?: string }): SallyportError {
  if (step === 'host_key') {
    if (error.level === 'handshake')
      return new SallyportError(
        'host_key_mismatch',
        'the host offers no key of a pinned type, or no algorithm in common',
        {
          failedStep: 'host_key',
          outcome: 'unreachable',
          remedy: 'Compare the host keys on the host (/etc/ssh/ssh_host_*_key.pub) with the stored pins.',
          cause: error,
        },
      );
    return new SallyportError('host_unreachable', 'the connection broke during the SSH key exchange', {
      failedStep: 'host_key',
      outcome: 'unreachable',
      retryable: true,
      cause: error,
    });
  }
  if (step === 'login' && error.level === 'agent')
    return new SallyportError('login_refused', 'the gateway’s SSH agent does not answer, or would not sign', {
      failedStep: 'login',
      outcome: 'unreachable',
      remedy: 'The operator looks at the agent: ssh-add -l, as the gateway’s user and with its SSH_AUTH_SOCK.',
      cause: error,
    });
  if (step === 'login' && error.level === 'client-authentication')
    return new SallyportError('login_refused', 'the host refused the login', {
      failedStep: 'login',
      outcome: 'unreachable',
      cause: error,
    });
  return new SallyportError(
    'host_unreachable',
    step === 'banner'
      ? 'the host closed the connection before its SSH version line'
      : 'the connection broke during login',
    { failedStep: step, outcome: 'unreachable', retryable: true, cause: error },
  );
}

const COMMANDS = { sh: Buffer.from(BOOTSTRAP), bash: Buffer.from(LOGIN_SHELL) };

/** Call it before something is sent: all packets of this turn of the event loop then leave in one write. */
function joinWrites(transport: Duplex): () => void {
  let isJoining = false;
  return () => {
    if (isJoining) return;
    isJoining = true;
    transport.cork();
    setImmediate(() => {
      isJoining = false;
      transport.uncork();
    });
  };
}

function bootstrapChannel(channel: SshChannel, login: LoginShell, join: () => void): Channel {
  return {
    run(input, events, reader) {
      join();
      // The answer to the host's last word about a program can wait until its caller has been told.
      const exit: ChannelEvents['exit'] = (end) => {
        join();
        events.exit(end);
      };
      channel.exec(COMMANDS[reader], input, { ...events, exit });
    },
    login,
    grant: (bytes) => channel.grant(bytes),
    ownSession: (_pid, stat) => stat, // sshd makes one for each channel.
    close() {
      join();
      channel.close();
    },
  };
}

function unsupported(what: string): SallyportError {
  return new SallyportError('shell_unsupported', `the login shell of the host cannot run commands: ${what}`, {
    failedStep: 'channel',
    outcome: 'unreachable',
    remedy: 'Look for a ForceCommand in sshd_config, a nologin or restricted login shell, or an rc file that exits.',
  });
}
