/** A database with evidence in it: rows, sealed and signed as a gateway does, and the ways to look at it and spoil it. */
import { createPublicKey } from 'node:crypto';
import { createSignatureCheck, signCheckpoint } from '../../src/access/checkpoint.ts';
import { generateSigningKey, loadSigningKey, type SigningKey } from '../../src/access/token.ts';
import { inSnapshot } from '../../src/db/audit-access.ts';
import { type OrgReport, type VerifyOptions, verifyOrg } from '../../src/db/audit-verify.ts';
import type { Database } from '../../src/db/database.ts';
import { execOf, exited } from '../db/facts.ts';
import { withClient } from './sql.ts';

export interface Signer {
  pem: string;
  publicPem: string;
  key: SigningKey;
}

export async function newSigner(): Promise<Signer> {
  const pem = await generateSigningKey();
  const publicPem = createPublicKey(pem).export({ type: 'spki', format: 'pem' }).toString();
  return { pem, publicPem, key: await loadSigningKey(pem) };
}

/** Opened and finished, one after another: the entries of each are neighbours. Resolves with their ids. */
export async function writeExecs({ audit }: Database, count: number, orgId = 'acme'): Promise<string[]> {
  const ids: string[] = [];
  for (let index = 0; index < count; index += 1) {
    const facts = execOf({ orgId, argv: ['echo', `${index}`] });
    await (await audit.open(facts)).close(exited());
    ids.push(facts.execId);
  }
  return ids;
}

export async function sealAll({ seals }: Database, orgId = 'acme'): Promise<number> {
  let total = 0;
  for (let sealed = await seals.seal(orgId); sealed !== null && sealed > 0; sealed = await seals.seal(orgId))
    total += sealed;
  return total;
}

export async function sign({ seals }: Database, { key }: Signer, orgId = 'acme') {
  const checkpoint = await seals.checkpoint(orgId, 0, (facts) => signCheckpoint(key, facts));
  if (checkpoint === null) throw new Error('there was nothing to sign');
  return checkpoint;
}

export async function verifyAs(
  url: string,
  signer: Signer | null,
  options: Partial<VerifyOptions> = {},
): Promise<OrgReport> {
  const check = signer === null ? null : createSignatureCheck([signer.key]);
  return await withClient(url, (client) =>
    inSnapshot(client, () => verifyOrg(client, { orgId: 'acme', check, given: null, ...options })),
  );
}

/** As whoever owns the server: no trigger fires, no append-only holds. */
export async function spoil(url: string, ...statements: string[]): Promise<void> {
  await withClient(url, async (client) => {
    await client.query('set session_replication_role = replica');
    for (const statement of statements) await client.query(statement);
  });
}
