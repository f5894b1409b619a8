/** The TokenStore port: the claims of issued tokens and whether they were revoked. The token itself never comes here. */
import { type Selectable, sql } from 'kysely';
import type { TokenRecord, TokenStore } from '../access/access.ts';
import { SallyportError } from '../errors.ts';
import { decodeCursor, encodeCursor, pageOf } from './cursor.ts';
import type { Schema } from './schema.ts';
import { orgOrAny, type Sql } from './sql.ts';
import { storableJson, storableText } from './storable.ts';

export function createTokenStore({ kysely }: Sql): TokenStore {
  return {
    /** `not_found` when the token is for a workspace that is not in its org. */
    async add(record) {
      const row = {
        id: record.id,
        org_id: record.orgId,
        workspace_id: record.workspaceId,
        kind: record.kind,
        name: storableText(record.name),
        scopes: storableJson(record.scopes),
        allow: record.allow === null ? null : storableJson(record.allow),
        created_at: record.createdAt,
        expires_at: record.expiresAt,
        revoked_at: record.revokedAt,
        created_by: storableText(record.createdBy),
      };
      await kysely.transaction().execute(async (transaction) => {
        if (record.workspaceId !== null) {
          const workspace = await transaction
            .selectFrom('workspaces')
            .select('id')
            .where('org_id', '=', record.orgId)
            .where('id', '=', record.workspaceId)
            .where('deleted_at', 'is', null)
            .forShare()
            .executeTakeFirst();
          if (workspace === undefined) throw new SallyportError('not_found', 'no such workspace');
        }
        await transaction.insertInto('tokens').values(row).execute();
      });
    },

    async list({ orgId, limit, after }) {
      const rows = await kysely
        .selectFrom('tokens')
        .selectAll()
        .where('org_id', '=', orgId)
        .$if(after !== undefined, (query) => query.where('seq', '<', decodeCursor('seq', after ?? '')))
        .orderBy('seq', 'desc')
        .limit(limit + 1)
        .execute();
      return pageOf(rows, limit, { item: toRecord, cursor: (row) => encodeCursor('seq', row.seq) });
    },

    async get(orgId, id) {
      const row = await kysely
        .selectFrom('tokens')
        .selectAll()
        .where('id', '=', storableText(id))
        .where('org_id', '=', orgOrAny(orgId))
        .executeTakeFirst();
      return row === undefined ? null : toRecord(row);
    },

    async revoke(orgId, id) {
      const { numUpdatedRows } = await kysely
        .updateTable('tokens')
        .set({ revoked_at: sql<Date>`coalesce(revoked_at, now())` })
        .where('id', '=', storableText(id))
        .where('org_id', '=', orgOrAny(orgId))
        .executeTakeFirst();
      return numUpdatedRows > 0n;
    },
  };
}

function toRecord(row: Selectable<Schema['tokens']>): TokenRecord {
  return {
    id: row.id,
    orgId: row.org_id,
    workspaceId: row.workspace_id,
    kind: row.kind,
    name: row.name,
    scopes: row.scopes,
    allow: row.allow,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    revokedAt: row.revoked_at,
    createdBy: row.created_by,
  };
}
