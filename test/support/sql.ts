/** One statement over a connection of its own, as somebody who comes to the database from outside. */
import pg from 'pg';

export type Row = Record<string, unknown>;

export async function runSql(url: string, text: string, values: unknown[] = []): Promise<Row[]> {
  return await withClient(url, async (client) => (await client.query<Row>(text, values)).rows);
}

/** For transactions: what `use` opened is rolled back at its end, if it did not commit. */
export async function withClient<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

/** Every row of every table as one text each: what anybody could ever find in this database. */
export async function dumpDatabase(url: string): Promise<string> {
  return await withClient(url, async (client) => {
    const { rows: tables } = await client.query<{ name: string }>(
      `select format('%I.%I', table_schema, table_name) as name from information_schema.tables
       where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema') order by 1`,
    );
    const dump: string[] = [];
    for (const { name } of tables) {
      const { rows } = await client.query<{ row: string }>(`select t::text as row from ${name} as t`);
      dump.push(`-- ${name}`, ...rows.map(({ row }) => row));
    }
    return dump.join('\n');
  });
}
