/**
 * Checkpoints of the audit chain: a position and its hash, so everything before them, signed by the gateway's key.
 *
 * What is signed is text with a line for each fact, the org last because only it may hold anything; the first line keeps it
 * apart from everything else that the key signs (tokens are base64url). Recheck one with
 * `openssl pkeyutl -verify -rawin -pubin -inkey public.pem -in text -sigfile signature`.
 */
import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { calculateJwkThumbprint, exportJWK } from 'jose';
import { z } from 'zod';
import type { SigningKey } from './token.ts';

const DOMAIN = 'sallyport audit checkpoint v1';

export interface CheckpointFacts {
  orgId: string;
  position: number;
  /** SHA-256 at that position, in hex. */
  hash: string;
  /** UTC with microseconds, by the clock of the database. */
  at: string;
}

export interface Checkpoint extends CheckpointFacts {
  kid: string;
  /** Base64. */
  signature: string;
}

export type PublicKey = Pick<SigningKey, 'publicKey' | 'kid'>;

export function signCheckpoint(key: SigningKey, facts: CheckpointFacts): Checkpoint {
  return { ...facts, kid: key.kid, signature: sign(null, textOf(facts, key.kid), key.privateKey).toString('base64') };
}

export type SignatureCheck = (checkpoint: Checkpoint) => 'good' | 'bad' | 'unknown key';

/** Several keys: a chain outlives the key that it began with. */
export function createSignatureCheck(keys: readonly PublicKey[]): SignatureCheck {
  return (checkpoint) => {
    const key = keys.find(({ kid }) => kid === checkpoint.kid);
    if (key === undefined) return 'unknown key';
    const signature = Buffer.from(checkpoint.signature, 'base64');
    return verify(null, textOf(checkpoint, checkpoint.kid), key.publicKey, signature) ? 'good' : 'bad';
  };
}

function textOf({ orgId, position, hash, at }: CheckpointFacts, kid: string): Buffer {
  return Buffer.from([DOMAIN, position, hash, at, kid, orgId].join('\n'));
}

/** Takes the public key as PEM, and a private one for its public half. Rejects with one sentence that quotes nothing of it. */
export async function loadPublicKey(pem: string): Promise<PublicKey> {
  const publicKey = publicKeyOrNull(pem);
  if (publicKey?.asymmetricKeyType !== 'ed25519') throw new Error('expected an Ed25519 key as PEM');
  return { publicKey, kid: await calculateJwkThumbprint(await exportJWK(publicKey)) };
}

function publicKeyOrNull(pem: string): KeyObject | null {
  try {
    return createPublicKey(pem);
  } catch {
    return null; // the reason is OpenSSL's and may quote its input
  }
}

const lineSchema = z.object({
  org: z.string().min(1),
  position: z.int().positive(),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
  at: z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
  kid: z.string().min(1),
  signature: z.string().min(1),
});

/** The members of a checkpoint's line in the log. */
export function checkpointLine({ orgId, ...rest }: Checkpoint): z.input<typeof lineSchema> {
  return { org: orgId, ...rest };
}

/** A line of the log, or null when it is none of a checkpoint. Other members (time, level) do not matter. */
export function parseCheckpointLine(rawLine: string): Checkpoint | null {
  try {
    const { org, ...rest } = lineSchema.parse(JSON.parse(rawLine));
    return { orgId: org, ...rest };
  } catch {
    return null; // a log is full of other lines
  }
}
