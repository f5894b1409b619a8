/** The RescueStore port: the latest evidence of each workspace. What comes here was redacted before. */
import type { Rescue, RescueStore, Section } from '../diagnose/rescue.ts';
import { RESCUES_KEPT } from '../limits.ts';
import type { Sql } from './sql.ts';
import { storableJson, storableText } from './storable.ts';

export function createRescueStore({ kysely }: Sql): RescueStore {
  return {
    async add({ id, orgId, workspaceId, actor, createdAt, diagnosis, sections }) {
      const row = {
        id,
        org_id: orgId,
        workspace_id: workspaceId,
        actor: storableText(actor),
        diagnosis: storableJson(diagnosis),
        sections: storableJson(sections),
        created_at: createdAt,
      };
      await kysely.transaction().execute(async (transaction) => {
        await transaction.insertInto('rescues').values(row).execute();
        const kept = transaction
          .selectFrom('rescues')
          .select('seq')
          .where('org_id', '=', orgId)
          .where('workspace_id', '=', workspaceId)
          .orderBy('seq', 'desc')
          .limit(RESCUES_KEPT);
        await transaction
          .deleteFrom('rescues')
          .where('org_id', '=', orgId)
          .where('workspace_id', '=', workspaceId)
          .where('seq', 'not in', kept)
          .execute();
      });
    },

    async latest(orgId, workspaceId): Promise<Rescue | null> {
      const row = await kysely
        .selectFrom('rescues')
        .selectAll()
        .where('org_id', '=', orgId)
        .where('workspace_id', '=', workspaceId)
        .orderBy('seq', 'desc')
        .limit(1)
        .executeTakeFirst();
      if (row === undefined) return null;
      const { id, actor, created_at: createdAt, diagnosis } = row;
      return { id, orgId, workspaceId, actor, createdAt, diagnosis, sections: row.sections as Section[] };
    },
  };
}
