/** What a start of the built program loads: nothing that its verb does not need, because loading is most of what it costs. */
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { SourceMap } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exitFrame, sendFrames, sendJson, startWireServer, type WireServer } from '../client/wire-server.ts';
import { builtProgram, type Ended, runNode } from '../support/program.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Of Node itself: each takes longer to load than what an exec does with it would be worth. */
const NEEDLESS = [
  /undici/,
  /^https$/,
  /^tls$/,
  /^crypto$/,
  /readline/,
  /^timers\/promises$/,
  /^internal\/fs\/streams$/,
];

let main: string;
let folder: string;
let server: WireServer;
/** What an empty program loads. */
let bare: readonly string[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sallyport-loading-'));
  await writeFile(
    join(folder, 'record.cjs'),
    `process.on('exit', () => require('node:fs').writeFileSync(process.env.LOADED, JSON.stringify(process.moduleLoadList)))`,
  );
  server = await startWireServer((response, { path }) => {
    if (path.endsWith('/exec')) sendFrames(response, [exitFrame({ exit_code: 3 })]);
    else sendJson(response, { items: [], next: null });
  });
  main = await builtProgram();
  await writeFile(join(folder, 'empty.cjs'), '');
  bare = (await loadedBy('bare', join(folder, 'empty.cjs'), [])).builtins;
});
afterAll(async () => {
  await server?.close();
  await rm(folder, { recursive: true });
});

interface Loaded {
  ended: Ended;
  /** Below dist/ or node_modules/, CommonJS and ES modules alike, sorted. */
  files: string[];
  /** Modules of Node, beyond what an empty program loads. */
  builtins: string[];
}

const loaded = (name: string, ...args: string[]) => loadedBy(name, main, args);

async function loadedBy(name: string, program: string, args: readonly string[]): Promise<Loaded> {
  const [coverage, list] = [join(folder, `${name}-coverage`), join(folder, `${name}.json`)];
  const ended = await runNode(['--require', join(folder, 'record.cjs'), program, ...args], {
    env: { SALLYPORT_URL: server.url, SALLYPORT_TOKEN: 'secret', LOADED: list, NODE_V8_COVERAGE: coverage },
  });
  const [report = ''] = await readdir(coverage);
  const { result }: { result: { url: string }[] } = JSON.parse(await readFile(join(coverage, report), 'utf8'));
  const modules: string[] = JSON.parse(await readFile(list, 'utf8'));
  return {
    ended,
    files: result
      .filter(({ url }) => url.startsWith('file:'))
      .map(({ url }) => placeOf(fileURLToPath(url)))
      .filter((file) => file !== 'record.cjs')
      .toSorted(),
    builtins: modules
      .filter((one) => one.startsWith('NativeModule '))
      .map((one) => one.slice('NativeModule '.length))
      .filter((one) => !bare.includes(one)),
  };
}

function placeOf(file: string): string {
  const inModules = file.lastIndexOf(`node_modules${sep}`);
  if (inModules >= 0) return file.slice(inModules).replaceAll(sep, '/');
  return relative(file.startsWith(folder) ? folder : dirname(main), file).replaceAll(sep, '/');
}

const matching = (names: readonly string[], patterns: readonly RegExp[]) =>
  names.filter((name) => patterns.some((pattern) => pattern.test(name)));

it('--version loads one file and no network', async () => {
  const { ended, files, builtins } = await loaded('version', '--version');
  const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
  expect(ended).toMatchObject({ code: 0, stdout: Buffer.from(`${version}\n`), stderr: '' });
  expect(files).toEqual(['main.js']);
  expect(matching(builtins, [...NEEDLESS, /^http$/])).toEqual([]);
});

it('an exec loads one file, what it takes to speak HTTP, and asks once', async () => {
  const { ended, files, builtins } = await loaded('exec', 'exec', 'ws-1', '--', 'true');
  expect(ended).toMatchObject({ code: 3, stderr: '' });
  expect(files).toEqual(['main.js']);
  expect(builtins).toContain('http');
  expect(matching(builtins, NEEDLESS)).toEqual([]);
  expect(server.asked.map(({ method, path }) => `${method} ${path}`)).toEqual(['POST /workspaces/ws-1/exec']);
  expect(server.connections()).toBe(1);
});

it('the other verbs load a second file and commander, nothing of the gateway', async () => {
  const { ended, files } = await loaded('verb', 'token', 'list', '--json');
  expect(ended).toMatchObject({ code: 0, stderr: '' });
  expect(files.filter((file) => !file.startsWith('node_modules/commander/'))).toEqual(['main.js', 'verbs.js']);
});

it('a verb of the server loads the gateway, and no second program', async () => {
  const { ended, files } = await loaded('server', 'audit', '--help');
  expect(ended).toMatchObject({ code: 0, stderr: '' });
  expect(files).toContain('gateway/evidence/evidence.js');
  expect(files).not.toContain('gateway/main.js');
});

it('the program starts through a link, as npm makes them', async () => {
  const link = join(folder, 'sallyport');
  await symlink(main, link);
  const { stdout } = await promisify(execFile)(link, ['--help'], { env: { PATH: process.env.PATH } });
  expect(stdout).toMatch(/^Usage: sallyport/);
});

it.each([
  ['main.js', 'function parseExecWords', 'src/cli/exec-options.ts'],
  ['verbs.js', 'function takeItems', 'src/cli/verb.ts'],
])('%s has a map: %s is found in %s', async (file, text, source) => {
  const code = await readFile(join(dirname(main), file), 'utf8');
  expect(code).toMatch(new RegExp(`\\n//# sourceMappingURL=${file}\\.map\\n$`));
  const lines = code.split('\n');
  const line = lines.findIndex((one) => one.includes(text));
  const map = new SourceMap(JSON.parse(await readFile(join(dirname(main), `${file}.map`), 'utf8')));
  const entry = map.findEntry(line, lines[line]?.indexOf(text) ?? 0);
  if (!('originalSource' in entry)) throw new Error(`nothing is known of ${file}:${line + 1}`);
  expect(entry.originalSource.endsWith(source), entry.originalSource).toBe(true);
  const original = (await readFile(join(ROOT, source), 'utf8')).split('\n');
  expect(original[entry.originalLine]).toContain(text);
});
