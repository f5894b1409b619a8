/** A line to a PostgreSQL socket that a test can cut, also right after the server has answered. */
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Line {
  /** The database of `url`, through this line. */
  url: string;
  /** The next answer of the server is lost together with its connection, and so is every new connection until `mend`. */
  loseNextAnswer(): void;
  /** Cuts every connection now; new ones are refused until `mend`. */
  cut(): void;
  mend(): void;
  close(): Promise<void>;
}

export async function openLine(url: string): Promise<Line> {
  const folder = await mkdtemp(join(tmpdir(), 'line-'));
  const target = `${new URL(url).searchParams.get('host')}/.s.PGSQL.5432`;
  const open = new Set<net.Socket>();
  let state: 'whole' | 'losing' | 'cut' = 'whole';

  const cut = () => {
    state = 'cut';
    for (const socket of open) socket.destroy();
  };
  const server = net.createServer((client) => {
    const upstream = net.connect(target);
    for (const socket of [client, upstream]) {
      open.add(socket);
      // A line that was cut says so on both ends; that is what it is for.
      socket
        .on('error', () => {})
        .on('close', () => {
          open.delete(socket);
          client.destroy();
          upstream.destroy();
        });
    }
    if (state !== 'whole') client.destroy();
    client.on('data', (bytes) => upstream.write(bytes));
    upstream.on('data', (bytes) => (state === 'losing' ? cut() : client.write(bytes)));
  });
  await new Promise<void>((resolve) => server.listen(join(folder, '.s.PGSQL.5432'), resolve));

  const through = new URL(url);
  through.searchParams.set('host', folder);
  return {
    url: through.href,
    loseNextAnswer() {
      state = 'losing';
    },
    cut,
    mend() {
      state = 'whole';
    },
    async close() {
      cut();
      await new Promise((resolve) => server.close(resolve));
      await rm(folder, { recursive: true });
    },
  };
}
