/** What the tests of the evidence share: a database of its own for each test, somebody who signs, and what both are asked. */
import { beforeEach } from 'vitest';
import type { VerifyOptions } from '../../src/db/audit-verify.ts';
import type { Database } from '../../src/db/database.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { newSigner, type Signer, sealAll, sign, spoil, verifyAs, writeExecs } from '../support/evidence.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { runSql } from '../support/sql.ts';

/** Of the org `acme`, where none is named. */
export function withEvidence() {
  failOnLeaks();
  let db: TestDatabase;
  let signer: Signer;
  beforeEach(async () => {
    db = await createTestDatabase();
    signer = await newSigner();
    return () => db.drop();
  });
  return {
    get url(): string {
      return db.url;
    },
    get database(): Database {
      return db.database;
    },
    get signer(): Signer {
      return signer;
    },
    ask: (text: string, values: unknown[] = []) => runSql(db.url, text, values),
    /** Opened and finished. Resolves with their ids. */
    write: (count: number, orgId?: string) => writeExecs(db.database, count, orgId),
    /** Resolves with how many entries were sealed. */
    seal: (orgId?: string) => sealAll(db.database, orgId),
    sign: (orgId?: string) => sign(db.database, signer, orgId),
    /** Resolves with the position that was signed. */
    async sealAndSign(orgId?: string): Promise<number> {
      await sealAll(db.database, orgId);
      return (await sign(db.database, signer, orgId)).position;
    },
    verify: (options?: Partial<VerifyOptions>) => verifyAs(db.url, signer, options),
    spoil: (...statements: string[]) => spoil(db.url, ...statements),
  };
}
