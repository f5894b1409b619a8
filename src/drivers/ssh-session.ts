/**
 * SSH login over a transport that somebody else opened, and the Session on it. Shared by the drivers ec2 and ssh.
 *
 * It knows nothing of AWS. The steps `banner`, `host_key` and `login` are written into the opening's trace; the key may
 * still be on its way to the host while the key exchange runs, only authentication waits for it (`beforeAuth`).
 */
import type { Duplex } from 'node:stream';
import { Client, type ConnectConfig, type ServerHostKeyAlgorithm } from 'ssh2';
import { SallyportError, type Step } from '../errors.ts';
import {
  ANSWER_GRACE_MS,
  EXECS_PER_SESSION,
  KILL_BUDGET_MS,
  SSH_KEEPALIVE_MAX_MISSED,
  SSH_KEEPALIVE_MS,
} from '../limits.ts';
import { deferred } from '../sessions/deferred.ts';
import type { Opening, ProcessMarker, Session, StartSpec, Survivors } from '../sessions/session.ts';
import { ChannelRefused, openChannel, type SshChannel } from './ssh-channel.ts';
import { runKillScript, type SshProcess, startProcess } from './ssh-process.ts';

export interface SshLogin {
  /** Already connected; belongs to the session from now on and is destroyed with it. */
  transport: Duplex;
  username: string;
  /** OpenSSH PEM, in memory only. */
  privateKey: string;
  /** Authentication waits for this (the key push); its rejection rejects the opening. */
  beforeAuth: Promise<void>;
  /** Only these host key types are offered, e.g. `ssh-ed25519`, `ssh-rsa`; null: every type we accept. */
  hostKeyTypes: readonly string[] | null;
  /** Gets the host key as SSH wire bytes; resolves null to accept it, or the error to refuse with. */
  verifyHostKey(wireKey: Buffer): Promise<SallyportError | null>;
}

/** Explicit lists: the library's own still hold SHA-1. AES-GCM first, it is the fastest with native crypto. */
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
    return createSession(client, closed);
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
    client.on('close', () => reject(refusal ?? explain(step, new Error('the connection was closed'))));
    login.beforeAuth.catch(reject);
    if (signal.aborted) onAbort();
  });
  failed.catch(() => undefined); // Whoever waits for a step below sees it; after `ready` nobody has to.

  const bannerSeen = new Promise<void>((resolve) => login.transport.once('data', () => resolve()));
  const hostKeySeen = deferred();
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
          if (error === null) hostKeySeen.resolve();
          verify(error === null);
        },
        (error: unknown) => {
          refusal = error;
          verify(false);
        },
      );
    },
    authHandler: publicKeyOnce(login),
  } as ConnectConfig);

  await trace.step('banner', undefined, () => Promise.race([bannerSeen, failed]));
  step = 'host_key';
  await trace.step('host_key', undefined, () => Promise.race([hostKeySeen.promise, failed]));
  await Promise.race([login.beforeAuth, failed]);
  step = 'login';
  await trace.step('login', `user ${login.username}`, () => Promise.race([ready, failed]));
}

/** Our key, once, as soon as the host has it; no `none`, no agent: sshd counts and delays every attempt. */
function publicKeyOnce(login: SshLogin): (left: unknown, partial: unknown, next: (method: unknown) => void) => void {
  let tried = false;
  return (_left, _partial, next) => {
    if (tried) return next(false);
    tried = true;
    login.beforeAuth.then(
      () => next({ type: 'publickey', username: login.username, key: login.privateKey }),
      () => next(false), // The opening has been rejected with this error already.
    );
  };
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

function createSession(client: Client, closed: Promise<Error | null>): Session {
  let capacity = EXECS_PER_SESSION;
  let running = 0;
  let dead = false;
  void closed.then(() => {
    dead = true;
  });

  /** `fits`: how many channels the host took. One of those is kept for control. */
  const learnCapacity = (fits: number): void => {
    capacity = Math.max(1, Math.min(capacity, fits - 1));
  };

  const control = async (mode: 'kill' | 'look', marker: ProcessMarker): Promise<Survivors> => {
    if (dead) return null;
    const budget = AbortSignal.timeout(KILL_BUDGET_MS);
    try {
      return await runKillScript(await openChannel(client, budget), mode, marker, budget);
    } catch (error) {
      if (error instanceof ChannelRefused) learnCapacity(running);
      return null; // Without a channel nobody could look.
    }
  };

  const openFor = async (signal: AbortSignal, committed: Promise<unknown>): Promise<SshChannel> => {
    if (dead) throw notSent(new Error('the session is closed'));
    const opened = openChannel(client, signal);
    opened.catch(() => undefined); // Thrown below, after `committed` has had its say.
    try {
      await committed;
    } catch (error) {
      opened.then(
        (channel) => channel.close(),
        () => undefined,
      ); // Not opened: nothing to close.
      throw error;
    }
    return await opened;
  };

  return {
    get capacity() {
      return capacity;
    },
    closed,
    close: () => client.end(),
    reap: (marker) => control('kill', marker),
    async start(spec, { signal, committed }) {
      running += 1;
      try {
        const channel = await openFor(signal, committed);
        const process = await startOrSweep(channel, spec, signal, control);
        void process.ended.then(() => {
          running -= 1;
        });
        return Object.assign(process, {
          kill: () => control('kill', process.marker),
          look: () => control('look', process.marker),
        });
      } catch (error) {
        running -= 1;
        if (error === signal.reason || error instanceof SallyportError) throw error;
        if (error instanceof ChannelRefused) learnCapacity(running);
        throw notSent(error);
      }
    },
  };
}

/** The request never left: the caller may try again on another session. */
function notSent(cause: unknown): SallyportError {
  return new SallyportError(
    'connection_lost',
    'the connection to the host was lost before the program was asked to start',
    {
      failedStep: 'channel',
      outcome: 'unreachable',
      retryable: true,
      cause,
    },
  );
}

/**
 * Starts the program. When `signal` aborts before the request is sent, it is not sent. Afterwards the preamble is on
 * its way and the program may start: its answer is waited for a little longer, so that the caller holds what it has to
 * end. A host that stays silent gets its channel closed and is searched for the marker.
 */
async function startOrSweep(
  channel: SshChannel,
  spec: StartSpec,
  signal: AbortSignal,
  control: (mode: 'kill', marker: ProcessMarker) => Promise<Survivors>,
): Promise<SshProcess> {
  if (signal.aborted) {
    channel.close();
    throw signal.reason;
  }
  const silent = deferred<never>();
  let patience: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    patience = setTimeout(() => silent.reject(signal.reason), ANSWER_GRACE_MS);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([startProcess(channel, spec), silent.promise]);
  } catch (error) {
    if (error !== signal.reason) throw error;
    channel.close();
    await control('kill', { execId: spec.execId, session: null });
    throw error;
  } finally {
    clearTimeout(patience);
    signal.removeEventListener('abort', onAbort);
  }
}
