/**
 * One instance: an SSH server on a loopback port of its own, which takes only keys that were pushed for this instance and
 * user in the last minute, and runs programs as local processes.
 *
 * Does not offer terminals, `env` requests, forwarding or subsystems: they are refused, as sshd refuses what is not
 * configured. A connection that dies kills no program, as under sshd without a terminal; the front door ends them all.
 */
import { mkdirSync } from 'node:fs';
import { createServer, type Server as NetServer, type Socket } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import ssh2, { type AuthContext, type Connection, type Session } from 'ssh2';
import type { LabContext } from './lab-context.ts';
import type { Pipes } from './pipes.ts';
import type { ProgramSessions } from './processes.ts';
import { type ProgramSpec, type SendSignal, startProgram } from './program.ts';
import { SessionChannel } from './ssh2-server.ts';
import type { Sshd, SshdOptions } from './sshd.ts';
import type { HostKey, InstanceRecord } from './world.ts';
import { newHostKey } from './world.ts';

export interface InstanceOptions {
  record: InstanceRecord;
  osUser: string;
  shell: string;
  /** Home folders of the instances; each has its own below. */
  homesDir: string;
  pipes: Pipes;
  sessions: ProgramSessions;
  context: LabContext;
}

interface Login {
  user: string;
  /** Address and port of the client. */
  peer: string;
}

/** As OpenSSH. */
const MAX_SESSIONS = 10;
const PLAYED_HERE = ['banner_hang', 'host_key_changed', 'no_shell', 'max_sessions', 'signal_ignored'] as const;
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const NO_SHELL = 'echo "This account is currently not available."; exit 1';

export class Instance {
  readonly id: string;
  readonly privateIp: string;
  readonly home: string;
  readonly #options: InstanceOptions;
  readonly #door: NetServer;
  readonly #sockets = new Set<Socket>();
  #server: ssh2.Server | null = null;
  #impostor: ssh2.Server | null = null;
  #sshd: Sshd | null = null;
  #port = 0;

  constructor(options: InstanceOptions) {
    this.#options = options;
    this.id = options.record.id;
    this.privateIp = options.record.privateIp;
    this.home = join(options.homesDir, this.id);
    mkdirSync(this.home, { recursive: true, mode: 0o700 });
    this.#door = createServer({ noDelay: true }, (socket) => this.#enter(socket));
  }

  /** Who logs in here: on a real sshd, the user who runs the lab. */
  get osUser(): string {
    return this.#sshd === null ? this.#options.osUser : userInfo().username;
  }

  /** The loopback port where the instance answers now. A fault that a real sshd has no switch for is played here. */
  get sshPort(): number {
    if (this.#sshd === null) return this.#port;
    const played = PLAYED_HERE.some((name) => this.#options.context.faults.peek(name, this.id) !== null);
    return played ? this.#port : this.#sshd.port;
  }

  /** What a real sshd for this instance is started with. */
  realSshd(dir: string, labPort: number): SshdOptions {
    const counts = this.#options.context.counters.instance(this.id);
    const count = { login: 'logins', login_failure: 'login_failures', channel: 'channels' } as const;
    return {
      instanceId: this.id,
      hostKeys: this.#options.record.hostKeys,
      dir,
      labPort,
      onLog: (event) => {
        counts[count[event]] += 1;
      },
    };
  }

  /** From now on this sshd answers for the instance; whoever started it stops it. */
  useSshd(sshd: Sshd): void {
    this.#sshd = sshd;
  }

  /** Counts again what only a look at the machine tells. */
  refreshCounters(): void {
    const counts = this.#options.context.counters.instance(this.id);
    counts.connections_open = this.#sockets.size + (this.#sshd?.countConnections() ?? 0);
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#door.once('error', reject).listen({ host: '127.0.0.1', port: 0 }, resolve);
    });
    const address = this.#door.address();
    if (typeof address !== 'object' || address === null) throw new Error('bug: a TCP server has a port');
    this.#port = address.port;
  }

  /** Cuts every connection; programs go on. */
  cutConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#sshd?.cutConnections();
  }

  /** Gives the port and every connection back. */
  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#door.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #enter(socket: Socket): void {
    const { faults } = this.#options.context;
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    // A reset; ssh2 hears of it too, but not while a banner is withheld.
    socket.on('error', () => undefined);
    if (faults.take('banner_hang', this.id) !== null) {
      socket.resume();
      return;
    }
    const changed = faults.take('host_key_changed', this.id) !== null;
    (changed ? this.#impostorServer() : this.#sshServer()).injectSocket(socket);
  }

  #sshServer(): ssh2.Server {
    this.#server ??= this.#newServer(this.#options.record.hostKeys);
    return this.#server;
  }

  /** Shows other keys of the same types, the same ones each time. */
  #impostorServer(): ssh2.Server {
    this.#impostor ??= this.#newServer([newHostKey('ed25519'), newHostKey('ecdsa')]);
    return this.#impostor;
  }

  #newServer(hostKeys: readonly HostKey[]): ssh2.Server {
    const server = new ssh2.Server({ hostKeys: hostKeys.map((key) => key.privateKey), ident: 'sallyport-lab' });
    server.on('connection', (connection: Connection, info: { ip: string; port: number }) => {
      this.#serve(connection, `${info.ip} ${info.port}`);
    });
    return server;
  }

  #serve(connection: Connection, peer: string): void {
    const { context } = this.#options;
    const counts = context.counters.instance(this.id);
    let user = '';
    const open = new Set<SessionChannel>();
    // A client that breaks the protocol or goes away; its socket closes, which is all there is to do.
    connection.on('error', () => undefined);
    connection.on('authentication', (auth: AuthContext) => {
      if (!this.#mayLogIn(auth)) {
        if (auth.method === 'publickey') counts.login_failures += 1;
        return auth.reject(['publickey']);
      }
      user = auth.username;
      auth.accept();
    });
    connection.on('ready', () => {
      counts.logins += 1;
    });
    connection.on('close', () => {
      for (const channel of open) channel.lose();
    });
    connection.on('session', (accept, reject) => {
      const limit = context.faults.peek('max_sessions', this.id)?.value ?? MAX_SESSIONS;
      if (open.size >= limit) return reject();
      const session = accept();
      const channel = new SessionChannel(session, connection, () => open.delete(channel));
      open.add(channel);
      this.#serveSession(session, channel, { user, peer });
    });
  }

  #mayLogIn(auth: AuthContext): boolean {
    if (auth.method !== 'publickey') return false;
    const { context } = this.#options;
    if (context.faults.take('login_refused', this.id) !== null) return false;
    const key = context.keys.find({ instanceId: this.id, osUser: auth.username }, auth.key.data);
    if (key === null) return false;
    // A client may first ask, without a signature, whether the key would do.
    if (!auth.signature || !auth.blob) return true;
    return key.verify(auth.blob, auth.signature, auth.hashAlgo);
  }

  #serveSession(session: Session, channel: SessionChannel, login: Login): void {
    let sendSignal: SendSignal = () => false;
    session.on('signal', (accept, reject, { name }) => {
      if (this.#options.context.faults.take('signal_ignored', this.id) !== null) return;
      const delivered = sendSignal(name);
      // Both are absent when the client wants no reply, which is usual for signals.
      const answer: (() => void) | undefined = delivered ? accept : reject;
      answer?.();
    });
    session.once('exec', (accept, _reject, { command }) => {
      this.#options.context.counters.instance(this.id).channels += 1;
      const fromClient = channel.open(accept);
      startProgram(channel, fromClient, this.#spec(command, login), this.#options).then(
        (send) => {
          sendSignal = send;
        },
        (error: unknown) => {
          this.#options.context.log.error({ err: error, instanceId: this.id }, 'a program could not be started');
          channel.sendExitCode(255);
          channel.close();
        },
      );
    });
  }

  #spec(command: string, login: Login): ProgramSpec {
    const { shell, context } = this.#options;
    const asked = context.faults.take('no_shell', this.id) === null ? command : NO_SHELL;
    return { shell, command: asked, cwd: this.home, env: this.#environment(login) };
  }

  /** What sshd sets, and nothing of the lab's own environment. */
  #environment({ user, peer }: Login): Record<string, string> {
    return {
      USER: user,
      LOGNAME: user,
      HOME: this.home,
      PATH,
      SHELL: this.#options.shell,
      SSH_CLIENT: `${peer} 22`,
      SSH_CONNECTION: `${peer} ${this.privateIp} 22`,
    };
  }
}
