/**
 * Real pipes for local programs.
 *
 * Node's own `pipe` stdio is a pair of sockets: with a socket as stdin bash reads ~/.bashrc, and no program can open
 * /dev/stdin, /dev/stdout or /dev/stderr. Node cannot make a pipe, so a perl makes BATCH at a time and they are opened here
 * through /proc: 5 ms a batch. FIFOs were tried: opening /dev/stdin after its end of file waits for ever. Where perl or
 * /proc is missing, programs get Node's sockets. The lab does the same for its programs; it stands alone.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** For eight programs, as many as a session runs at once. */
const BATCH = 24;
/** Names one descriptor of each pipe, then waits for the end of its input. */
const MAKER = `$| = 1; for (1..${BATCH}) { pipe(my $r, my $w) or die; push @kept, $r, $w; print fileno($r), "\\n" } <STDIN>`;

export interface ProgramPipes {
  stdin: Socket;
  stdout: Socket;
  stderr: Socket;
  /** The program's ends; the caller closes them once it is started. */
  fds: readonly [stdin: number, stdout: number, stderr: number];
}

export interface Pipes {
  /** Null: none can be made on this machine. */
  open(): Promise<ProgramPipes | null>;
  /** Closes what was made ahead; opens none afterwards. */
  close(): void;
}

interface Pipe {
  readFd: number;
  writeFd: number;
}

export function createPipes(perl: string): Pipes {
  let ready: Pipe[] = [];
  let making: Promise<void> | null = null;
  let usable = process.platform === 'linux';
  let closed = false;

  const discard = (): void => {
    for (const { readFd, writeFd } of ready) {
      closeSync(readFd);
      closeSync(writeFd);
    }
    ready = [];
  };
  const make = async (): Promise<void> => {
    const pipes = await makeBatch(perl);
    if (pipes.length === 0) usable = false;
    ready.push(...pipes);
    if (closed) discard();
  };

  return {
    async open() {
      while (usable && !closed && ready.length < 3) {
        making ??= make().finally(() => {
          making = null;
        });
        await making;
      }
      const [stdin, stdout, stderr] = ready.splice(0, 3);
      if (stdin === undefined || stdout === undefined || stderr === undefined) return null;
      return {
        stdin: new Socket({ fd: stdin.writeFd, readable: false, writable: true }),
        stdout: new Socket({ fd: stdout.readFd, readable: true, writable: false }),
        stderr: new Socket({ fd: stderr.readFd, readable: true, writable: false }),
        fds: [stdin.readFd, stdout.writeFd, stderr.writeFd],
      };
    },
    close() {
      closed = true;
      discard();
    },
  };
}

/** Empty where none can be made. */
async function makeBatch(perl: string): Promise<Pipe[]> {
  const maker = spawn(perl, ['-e', MAKER], { stdio: ['pipe', 'pipe', 'ignore'], env: {} });
  const gone = once(maker, 'exit');
  gone.catch(() => undefined); // Awaited below; without perl it rejects before that.
  const pipes: Pipe[] = [];
  try {
    await openAll(maker, pipes);
    maker.stdin.end();
    // Until it has gone, it holds both ends of each pipe, and no end of file would come.
    await gone;
    return pipes;
  } catch {
    // No perl, no /proc, or no descriptors left: sockets will do.
    maker.kill('SIGKILL');
    for (const { readFd, writeFd } of pipes) {
      closeSync(readFd);
      closeSync(writeFd);
    }
    return [];
  }
}

async function openAll(maker: ChildProcess & { stdout: NodeJS.ReadableStream }, pipes: Pipe[]): Promise<void> {
  for await (const line of createInterface({ input: maker.stdout })) {
    const path = `/proc/${maker.pid}/fd/${line}`;
    const readFd = openSync(path, constants.O_RDONLY);
    pipes.push({ readFd, writeFd: openSync(path, constants.O_WRONLY) });
    if (pipes.length === BATCH) return;
  }
}
