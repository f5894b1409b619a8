/** The PinStore port: which host keys an instance may show. Not tenant data: an instance has its keys whoever's it is. */
import { sql } from 'kysely';
import type { PinStore } from '../drivers/host-keys.ts';
import type { ReplacedKeys } from '../exec/host-keys.ts';
import type { Sql } from './sql.ts';

const SET_BY_ADMIN = `
select region, instance_id, max(seq)::float8 as seq from host_keys
where source = 'admin' and seq > $1 group by region, instance_id`;

export function createPinStore({ kysely, run }: Sql): PinStore & ReplacedKeys {
  return {
    async get(region, instanceId) {
      return kysely
        .selectFrom('host_keys')
        .select(['type', 'blob', 'source'])
        .where('region', '=', region)
        .where('instance_id', '=', instanceId)
        .orderBy('type')
        .execute();
    },

    async after(seq) {
      const { rows } = await run<{ region: string; instance_id: string; seq: number }>({
        name: 'host_keys_replaced',
        text: SET_BY_ADMIN,
        values: [seq],
      });
      return rows.map(({ region, instance_id: instanceId, seq }) => ({ place: { region, instanceId }, seq }));
    },

    async put(region, instanceId, pins, source) {
      const rows = pins.map(({ type, blob }) => ({ region, instance_id: instanceId, type, blob, source }));
      await kysely.transaction().execute(async (transaction) => {
        // Two writers at once would otherwise leave the union of both sets, which neither of them verified.
        await sql`lock table host_keys in share row exclusive mode`.execute(transaction);
        await transaction
          .deleteFrom('host_keys')
          .where('region', '=', region)
          .where('instance_id', '=', instanceId)
          .execute();
        if (rows.length > 0) await transaction.insertInto('host_keys').values(rows).execute();
      });
    },
  };
}
