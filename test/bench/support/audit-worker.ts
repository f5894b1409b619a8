/** The audit log alone, as the gateway uses it, on a database of its own. */
import { randomUUID } from 'node:crypto';
import type { ExecRequestFacts, ExecResultFacts } from '../../../src/audit.ts';
import { type Database, openDatabase } from '../../../src/db/database.ts';
import { silent } from '../../support/database-url.ts';
import { type Load, runLoad } from './load.ts';
import { answerAsks } from './worker.ts';

let database: Database | null = null;

const ops = {
  async open({ url }: { url: string }): Promise<void> {
    database = await openDatabase({ url, migrateUrl: null, dataDir: '/nonexistent', replica: 'bench', log: silent });
  },

  /** One row: until it is committed as running, and until it is finished too. ms */
  async once(_: object): Promise<{ openMs: number; cycleMs: number }> {
    const from = performance.now();
    const entry = await auditOf().open(request());
    const openMs = performance.now() - from;
    await entry.close(RESULT);
    return { openMs, cycleMs: performance.now() - from };
  },

  /** A call is one row; `finishes`: opened and finished, else only opened. */
  async load({ callers, forMs, finishes }: { callers: number; forMs: number; finishes: boolean }): Promise<Load> {
    return await runLoad({ callers, forMs }, async () => {
      const entry = await auditOf().open(request());
      if (finishes) await entry.close(RESULT);
    });
  },

  async close(_: object): Promise<void> {
    await database?.close();
  },
};

function auditOf(): Database['audit'] {
  if (database === null) throw new Error('bug: the database is not open');
  return database.audit;
}

function request(): ExecRequestFacts {
  return {
    execId: randomUUID(),
    orgId: 'bench',
    workspaceId: 'real',
    actor: 'org-token:0123abcd',
    requestId: randomUUID(),
    argv: ['/bin/true'],
    cwd: null,
    envNames: [],
    stdinBytes: 0,
    timeoutS: 30,
    driver: 'ssh',
  };
}

const RESULT: ExecResultFacts = {
  outcome: 'exited',
  exitCode: 0,
  signal: null,
  durationMs: 3,
  stdoutBytes: 0,
  stderrBytes: 0,
  errorDetail: null,
};

export type AuditOps = typeof ops;
answerAsks(ops);
