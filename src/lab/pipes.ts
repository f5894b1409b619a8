/**
 * Real pipes for the programs of an instance.
 *
 * Decision: Node's own `pipe` stdio is a pair of sockets. With a socket as stdin bash reads ~/.bashrc, and no program can
 * open /dev/stdin, /dev/stdout or /dev/stderr; sshd gives pipes. Node cannot make one, so a perl makes BATCH at a time and
 * they are opened here through /proc. FIFOs were tried: opening /dev/stdin after its end of file waits for ever. Where perl
 * or /proc is missing, programs get Node's sockets.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** Pipes for 32 programs, made in about 5 ms. */
const BATCH = 96;
const REFILL_BELOW = 24;
/** Names one descriptor of each pipe, then waits for the end of its input. */
const MAKER = `$| = 1; for (1..${BATCH}) { pipe(my $r, my $w) or die; push @kept, $r, $w; print fileno($r), "\\n" } <STDIN>`;

export interface ProgramPipes {
  stdin: Socket;
  stdout: Socket;
  stderr: Socket;
  /** The program's ends; the caller closes them once it is started. */
  fds: [stdin: number, stdout: number, stderr: number];
}

interface Pipe {
  readFd: number;
  writeFd: number;
}

export class Pipes {
  readonly #perl: string;
  #ready: Pipe[] = [];
  #making: Promise<void> | null = null;
  #usable = process.platform === 'linux';
  #closed = false;

  constructor(perl = 'perl') {
    this.#perl = perl;
  }

  /** Null: none can be made on this machine. */
  async open(): Promise<ProgramPipes | null> {
    while (this.#usable && !this.#closed && this.#ready.length < 3) await this.#make();
    if (this.#closed) throw new Error('the lab has stopped');
    const [stdin, stdout, stderr] = this.#ready.splice(0, 3);
    if (!stdin || !stdout || !stderr) return null;
    // Ahead of need; a failure is met by the next opening.
    if (this.#ready.length < REFILL_BELOW) this.#make().catch(() => undefined);
    return {
      stdin: new Socket({ fd: stdin.writeFd, readable: false, writable: true }),
      stdout: new Socket({ fd: stdout.readFd, readable: true, writable: false }),
      stderr: new Socket({ fd: stderr.readFd, readable: true, writable: false }),
      fds: [stdin.readFd, stdout.writeFd, stderr.writeFd],
    };
  }

  close(): void {
    this.#closed = true;
    for (const { readFd, writeFd } of this.#ready.splice(0)) {
      closeSync(readFd);
      closeSync(writeFd);
    }
  }

  #make(): Promise<void> {
    this.#making ??= this.#makeBatch().finally(() => {
      this.#making = null;
    });
    return this.#making;
  }

  async #makeBatch(): Promise<void> {
    const maker = spawn(this.#perl, ['-e', MAKER], { stdio: ['pipe', 'pipe', 'ignore'] });
    const gone = once(maker, 'exit');
    // Awaited below; without perl it rejects before that.
    gone.catch(() => undefined);
    try {
      const pipes = await openAll(maker);
      maker.stdin.end();
      // Until it has gone, it holds both ends of each pipe, and no end of file would come.
      await gone;
      if (pipes.length === 0) this.#usable = false;
      this.#ready.push(...pipes);
    } catch {
      // No perl.
      this.#usable = false;
    }
    if (this.#closed) this.close();
  }
}

async function openAll(maker: ChildProcess & { stdout: NodeJS.ReadableStream }): Promise<Pipe[]> {
  const pipes: Pipe[] = [];
  for await (const line of createInterface({ input: maker.stdout })) {
    const path = `/proc/${maker.pid}/fd/${line}`;
    pipes.push({ readFd: openSync(path, constants.O_RDONLY), writeFd: openSync(path, constants.O_WRONLY) });
    if (pipes.length === BATCH) break;
  }
  return pipes;
}
