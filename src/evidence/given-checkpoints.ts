/** Checkpoints from outside of the database: what a chain whose end was cut off cannot hide from. */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { type Checkpoint, parseCheckpointLine, type SignatureCheck } from '../access/checkpoint.ts';
import { UsageError } from './usage.ts';
import type { Io } from './verb.ts';

export interface GivenCheckpoints {
  /** By org; a newer one says all that an older one does. */
  newest: ReadonlyMap<string, Checkpoint>;
  forged: number;
  unknownKey: number;
}

/** A log may be large: one line at a time, and the newest of an org is kept. */
export async function readCheckpoints(source: string, io: Io, check: SignatureCheck | null): Promise<GivenCheckpoints> {
  const newest = new Map<string, Checkpoint>();
  const counts = { forged: 0, unknownKey: 0, found: 0 };
  for await (const line of createInterface({ input: inputOf(source, io), crlfDelay: Number.POSITIVE_INFINITY })) {
    const checkpoint = parseCheckpointLine(line);
    if (checkpoint === null) continue;
    counts.found += 1;
    const verdict = check?.(checkpoint);
    if (verdict === 'bad') counts.forged += 1;
    if (verdict === 'unknown key') counts.unknownKey += 1;
    const { orgId, position } = checkpoint;
    if (verdict === 'good' && position > (newest.get(orgId)?.position ?? 0)) newest.set(orgId, checkpoint);
  }
  if (counts.found === 0) throw new UsageError('--checkpoint: no line of a checkpoint is in what was given');
  return { newest, ...counts };
}

function inputOf(source: string, io: Io): NodeJS.ReadableStream {
  if (source === '-') return io.stdin();
  return source.trimStart().startsWith('{') ? Readable.from([source]) : createReadStream(source);
}
