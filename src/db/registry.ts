/** The Registry port: orgs and workspaces. Who may change what is decided before (access/, http/). */
import { sql } from 'kysely';
import type { Registry } from '../access/access.ts';
import { SallyportError } from '../errors.ts';
import type { Workspace } from '../workspace.ts';
import { decodeCursor, encodeCursor, pageOf } from './cursor.ts';
import { FOREIGN_KEY_VIOLATION, orgOrAny, refusalOf, type Sql, UNIQUE_VIOLATION } from './sql.ts';
import { storableJson, storableText } from './storable.ts';
import { toColumns, toWorkspace, WORKSPACE_COLUMNS } from './workspace-row.ts';

const ORG_COLUMNS = ['id', 'name', 'frozen'] as const;

export function createRegistry({ kysely }: Sql): Registry {
  return {
    async listWorkspaces({ orgId, limit, after }) {
      const rows = await kysely
        .selectFrom('workspaces')
        .select(WORKSPACE_COLUMNS)
        .where('org_id', '=', orgOrAny(orgId))
        .where('deleted_at', 'is', null)
        .$if(after !== undefined, (query) => query.where('id', '>', decodeCursor('id', after ?? '')))
        .orderBy('id')
        .limit(limit + 1)
        .execute();
      return pageOf(rows, limit, { item: toWorkspace, cursor: (row) => encodeCursor('id', row.id) });
    },

    /**
     * A living id is taken over also from another org: that is how a workspace moves. A deleted one comes back to life
     * in its own org only, so that nobody inherits what was said about it.
     */
    async putWorkspace(workspace) {
      const columns = toColumns(workspace);
      const changes = { ...columns, updated_at: sql<Date>`now()`, deleted_at: null };
      try {
        const row = await kysely
          .with('before', (query) => query.selectFrom('workspaces').select('deleted_at').where('id', '=', workspace.id))
          .insertInto('workspaces')
          .values(columns)
          .onConflict((conflict) =>
            conflict
              .column('id')
              .doUpdateSet(changes)
              .where((where) =>
                where.or([
                  where('workspaces.deleted_at', 'is', null),
                  where('workspaces.org_id', '=', workspace.orgId),
                ]),
              ),
          )
          .returning(sql<boolean>`exists (select from before where deleted_at is null)`.as('was_alive'))
          .executeTakeFirst();
        if (row !== undefined) return row.was_alive ? 'replaced' : 'created';
      } catch (error) {
        throw explained(error, workspace);
      }
      throw new SallyportError(
        'invalid_request',
        'id: expected a free id; this one was used and deleted in another org',
      );
    },

    async patchWorkspace(orgId, id, change) {
      const changes = {
        ...(change.name === undefined ? {} : { name: storableText(change.name) }),
        ...(change.labels === undefined ? {} : { labels: storableJson(change.labels) }),
        updated_at: sql<Date>`now()`,
      };
      const row = await kysely
        .updateTable('workspaces')
        .set(changes)
        .where('id', '=', storableText(id))
        .where('org_id', '=', orgOrAny(orgId))
        .where('deleted_at', 'is', null)
        .returning(WORKSPACE_COLUMNS)
        .executeTakeFirst();
      return row === undefined ? null : toWorkspace(row);
    },

    async deleteWorkspace(orgId, id) {
      const { numUpdatedRows } = await kysely
        .updateTable('workspaces')
        .set({ deleted_at: sql<Date>`now()` })
        .where('id', '=', storableText(id))
        .where('org_id', '=', orgOrAny(orgId))
        .where('deleted_at', 'is', null)
        .executeTakeFirst();
      return numUpdatedRows > 0n;
    },

    async getOrg(id) {
      const row = await kysely
        .selectFrom('orgs')
        .select(ORG_COLUMNS)
        .where('id', '=', storableText(id))
        .executeTakeFirst();
      return row ?? null;
    },

    async listOrgs({ limit, after }) {
      const rows = await kysely
        .selectFrom('orgs')
        .select(ORG_COLUMNS)
        .$if(after !== undefined, (query) => query.where('id', '>', decodeCursor('id', after ?? '')))
        .orderBy('id')
        .limit(limit + 1)
        .execute();
      return pageOf(rows, limit, { item: (row) => row, cursor: (row) => encodeCursor('id', row.id) });
    },

    async putOrg({ id, name }) {
      const row = await kysely
        .insertInto('orgs')
        .values({ id, name: storableText(name) })
        .onConflict((conflict) => conflict.column('id').doUpdateSet({ name: storableText(name) }))
        // A row that this statement inserted was never locked or deleted by a transaction.
        .returning(sql<boolean>`(xmax = 0)`.as('created'))
        .executeTakeFirstOrThrow();
      return row.created ? 'created' : 'replaced';
    },

    async freezeOrg(id, frozen) {
      const row = await kysely
        .updateTable('orgs')
        .set({ frozen })
        .where('id', '=', storableText(id))
        .returning(ORG_COLUMNS)
        .executeTakeFirst();
      return row ?? null;
    },

    async freezePerson({ orgId, sub }, frozen) {
      if (!frozen) {
        await kysely.deleteFrom('frozen_people').where('org_id', '=', orgId).where('sub', '=', sub).execute();
        return;
      }
      try {
        await kysely
          .insertInto('frozen_people')
          .values({ org_id: orgId, sub })
          .onConflict((conflict) => conflict.doNothing())
          .execute();
      } catch (error) {
        if (refusalOf(error)?.code === FOREIGN_KEY_VIOLATION) throw new SallyportError('not_found', 'no such org');
        throw error;
      }
    },

    async listFrozenPeople({ orgId, limit, after }) {
      const rows = await kysely
        .selectFrom('frozen_people')
        .select(['sub', 'frozen_at'])
        .where('org_id', '=', orgId)
        .$if(after !== undefined, (query) => query.where('sub', '>', decodeCursor('sub', after ?? '')))
        .orderBy('sub')
        .limit(limit + 1)
        .execute();
      return pageOf(rows, limit, {
        item: ({ sub, frozen_at: frozenAt }) => ({ sub, frozenAt }),
        cursor: (row) => encodeCursor('sub', row.sub),
      });
    },
  };
}

function explained(error: unknown, workspace: Workspace): unknown {
  const refusal = refusalOf(error);
  if (refusal?.code === UNIQUE_VIOLATION && refusal.constraint === 'workspaces_instance') {
    // Which workspace has it is not said: it may be another tenant's.
    return new SallyportError(
      'invalid_request',
      'instance_id: expected an instance that no other workspace has; this one is taken in its region',
    );
  }
  if (refusal?.code === FOREIGN_KEY_VIOLATION) {
    return new SallyportError('invalid_request', `org_id: expected an org that exists, got ${workspace.orgId}`);
  }
  return error;
}
