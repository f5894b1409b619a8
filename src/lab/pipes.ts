/**
 * Real pipes for the programs of an instance.
 *
 * Decision: Node's own `pipe` stdio is a pair of sockets. With a socket as stdin bash reads ~/.bashrc, and no program can
 * open /dev/stdin or /dev/stdout; sshd gives pipes. Node cannot make a pipe, so each is a FIFO that is opened at both ends
 * and unlinked at once. FIFOs are made many at a time: one `mkfifo` for BATCH of them.
 */
import { execFile } from 'node:child_process';
import { closeSync, constants, mkdirSync, openSync, rmSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const BATCH = 96;
const REFILL_BELOW = 24;

export interface PipeEnds {
  readFd: number;
  writeFd: number;
}

export class Pipes {
  readonly #dir: string;
  #ready: string[] = [];
  #made = 0;
  #refill: Promise<void> | null = null;
  #closed = false;

  /** `dir` is made, and emptied: what an earlier run left there belongs to nobody. */
  constructor(dir: string) {
    rmSync(dir, { recursive: true, force: true });
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    this.#dir = dir;
  }

  /** `count` pipes; the caller closes both ends. The end that stays here does not block, the program's end does. */
  async open(count: number, here: (index: number) => 'read' | 'write'): Promise<PipeEnds[]> {
    while (this.#ready.length < count) await this.#make();
    if (this.#closed) throw new Error('the lab has stopped');
    const paths = this.#ready.splice(0, count);
    // Not awaited: it makes the next opening fast; a failure comes out there.
    if (this.#ready.length < REFILL_BELOW) this.#make().catch(() => undefined);
    return paths.map((path, index) => openBothEnds(path, here(index)));
  }

  /** No pipe is given out any more. */
  close(): void {
    this.#closed = true;
  }

  #make(): Promise<void> {
    this.#refill ??= this.#makeBatch().finally(() => {
      this.#refill = null;
    });
    return this.#refill;
  }

  async #makeBatch(): Promise<void> {
    const paths = Array.from({ length: BATCH }, () => join(this.#dir, String(this.#made++)));
    await promisify(execFile)('mkfifo', ['-m', '600', ...paths]);
    this.#ready.push(...paths);
  }
}

/** A FIFO opens for writing only when it is open for reading, and a blocking reader would wait for a writer. */
function openBothEnds(path: string, here: 'read' | 'write'): PipeEnds {
  const idleRead = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (here === 'read') return { readFd: idleRead, writeFd: openSync(path, constants.O_WRONLY) };
    const writeFd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    const readFd = openSync(path, constants.O_RDONLY);
    closeSync(idleRead);
    return { readFd, writeFd };
  } finally {
    unlinkSync(path);
  }
}
