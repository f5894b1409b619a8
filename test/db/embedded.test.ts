import { execFileSync, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { openDatabase } from '../../src/db/database.ts';
import { type Embedded, type EmbeddedOptions, startEmbedded } from '../../src/db/embedded.ts';
import { accountLauncher, findBinaries } from '../../src/db/postgres-binaries.ts';
import { silent } from '../support/database-url.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { isAlive, killNow, processTable, waitUntilGone } from '../support/processes.ts';
import { waitUntil } from '../support/wait.ts';

failOnLeaks();

let root: string;
const started: Embedded[] = [];
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'sp-'));
});
afterEach(async () => {
  await Promise.all(started.splice(0).map((server) => server.stop()));
});
afterAll(() => rm(root, { recursive: true }));

async function start(dataDir: string, options: Partial<EmbeddedOptions> = {}): Promise<Embedded> {
  const server = await startEmbedded({ dataDir, log: silent, durable: false, ...options });
  started.push(server);
  return server;
}

async function ask(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

async function serverPid(dataDir: string): Promise<number> {
  const text = await readFile(join(dataDir, 'postgres-18', 'data', 'postmaster.pid'), 'utf8');
  return Number(text.split('\n')[0]);
}

const modeOf = async (path: string) => ((await stat(path)).mode & 0o777).toString(8);
const processesOf = (dataDir: string) => processTable().filter(({ args }) => args.join(' ').includes(dataDir));

describe('on one data folder', () => {
  let dataDir: string;
  beforeAll(() => {
    // A path that would be several in a list of folders, and several words in a command line.
    dataDir = join(root, 'a "b", c');
  });

  test('a first start makes the folder for us alone, without a TCP port', async () => {
    const { url } = await start(dataDir);
    expect(await ask(url, 'show listen_addresses')).toEqual([{ listen_addresses: '' }]);
    const paths = ['', 'postgres-18', 'postgres-18/data', 'postgres-18/run'].map((path) => join(dataDir, path));
    expect(await Promise.all(paths.map(modeOf))).toEqual(['700', '700', '700', '700']);
    expect(await modeOf(join(dataDir, 'postgres-18', 'lock'))).toBe('600');
  });

  test('stop ends every process, and a second stop does no harm', async () => {
    const server = await start(dataDir);
    expect(processesOf(dataDir).length).toBeGreaterThan(0);
    await server.stop();
    expect(processesOf(dataDir)).toEqual([]);
    await server.stop();
  });

  test('a second start while one runs is refused with a sentence that names folder and remedy', async () => {
    const { url } = await start(dataDir);
    await expect(start(dataDir)).rejects.toThrow(
      `the data folder ${dataDir} is in use by another running gateway: stop it first, or set SALLYPORT_DATA_DIR to another folder`,
    );
    expect(await ask(url, 'select 1 as one')).toEqual([{ one: 1 }]);
  });

  test('a pid file that names a living stranger does not stop a start', async () => {
    await (await start(dataDir)).stop();
    const pidFile = join(dataDir, 'postgres-18', 'data', 'postmaster.pid');
    await writeFile(pidFile, `${process.pid}\n${join(dataDir, 'postgres-18', 'data')}\n1\n5432\n\n\n\nready\n`);
    await writeFile(join(dataDir, 'postgres-18', 'run', '.s.PGSQL.5432.lock'), `${process.pid}\n`);
    const { url } = await start(dataDir);
    expect(await ask(url, 'select 1 as one')).toEqual([{ one: 1 }]);
  });

  test('a server that dies is started again under the same URL', async () => {
    const { url } = await start(dataDir);
    const pid = await serverPid(dataDir);
    killNow(pid);
    await waitUntilGone([pid]);
    const answers = () =>
      ask(url, 'select 1 as one').then(
        () => true,
        () => false,
      );
    await waitUntil('the server answers again', answers);
    expect(await serverPid(dataDir)).not.toBe(pid);
  });

  test('when its owner is killed the server ends, and the next start has every acknowledged row', async () => {
    const program = fileURLToPath(new URL('write-until-killed.ts', import.meta.url));
    const owner = spawn(process.execPath, ['--import', 'tsx', program, dataDir], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const lines: string[] = [];
    createInterface({ input: owner.stdout }).on('line', (line) => lines.push(line));
    const ended = new Promise((resolve) => owner.once('close', resolve));
    await waitUntil('rows are acknowledged', () => lines.length > 100, 15_000);
    const pid = await serverPid(dataDir);
    killNow(owner.pid as number);
    await ended;
    await waitUntilGone([pid, ...processesOf(dataDir).map((row) => row.pid)]);

    const database = await openDatabase({ url: null, migrateUrl: null, dataDir, replica: 'next', log: silent });
    const statuses = new Map<string, unknown>();
    for (let after: string | undefined; ; ) {
      const page = await database.audit.list({ orgId: 'acme', limit: 500, ...(after && { after }) });
      for (const row of page.items) statuses.set(row.id, row.status);
      if (page.next === null) break;
      after = page.next;
    }
    await database.close();
    const acknowledged = (word: string) =>
      lines.filter((line) => line.startsWith(word)).map((line) => line.split(' ')[1]);
    expect(acknowledged('opened').filter((id) => !statuses.has(id as string))).toEqual([]);
    expect(acknowledged('closed').filter((id) => statuses.get(id as string) !== 'ok')).toEqual([]);
    expect(isAlive(pid)).toBe(false);
  });
});

test('two first starts at once make one cluster, and one of them is refused', async () => {
  const dataDir = join(root, 'race');
  const results = await Promise.allSettled([start(dataDir), start(dataDir)]);
  expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  expect(results.find(({ status }) => status === 'rejected')).toMatchObject({
    reason: { message: expect.stringContaining('is in use') },
  });
});

test('a data folder with a long path gets its socket elsewhere, and takes it away again', async () => {
  const dataDir = join(root, 'x'.repeat(100));
  const abandoned = join(dataDir, 'postgres-18', 'data.new-abcdef');
  await mkdir(abandoned, { recursive: true });
  await utimes(abandoned, 0, 0);
  const server = await start(dataDir);
  const runDir = new URL(server.url).searchParams.get('host') ?? '';
  expect(Buffer.byteLength(join(runDir, '.s.PGSQL.5432'))).toBeLessThan(100);
  expect(await modeOf(runDir)).toBe('700');
  expect(await ask(server.url, 'select 1 as one')).toEqual([{ one: 1 }]);
  await server.stop();
  await expect(stat(runDir)).rejects.toThrow('ENOENT');
  // The rest of an initdb that was killed is gone as well.
  await expect(stat(abandoned)).rejects.toThrow('ENOENT');
});

test('a platform without the package gets one sentence that names DATABASE_URL', async () => {
  await expect(findBinaries('plan9-mips')).rejects.toThrow(
    /^no embedded database is installed for plan9-mips .*: set DATABASE_URL to a PostgreSQL server$/,
  );
});

/** Only root can change the account, and only to one that may enter the folder of the programs. */
async function canRunAsAccount(): Promise<boolean> {
  if (process.getuid?.() !== 0) return false;
  const [{ user }, { postgres }] = [await accountLauncher(), await findBinaries()];
  try {
    execFileSync(postgres, ['--version'], { ...user });
    return true;
  } catch {
    // Not readable for that account here.
    return false;
  }
}

test.runIf(await canRunAsAccount())('root without user namespaces runs the server as another account', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'sp-'));
  const launcher = await accountLauncher();
  const server = await start(dataDir, { launcher });
  expect(await ask(server.url, 'select 1 as one')).toEqual([{ one: 1 }]);
  expect((await stat(`/proc/${await serverPid(dataDir)}`)).uid).toBe(launcher.user?.uid);
  expect(await modeOf(dataDir)).toBe('711');
  expect(await modeOf(join(dataDir, 'postgres-18'))).toBe('700');
  await server.stop();
  await rm(dataDir, { recursive: true });
});
