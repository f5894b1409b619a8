/**
 * Row 4: how fast output comes through, as NDJSON over HTTP, as a share of bare ssh2 reading the same file from the same
 * sshd. Payload bytes count, not what JSON makes of them. The caller reads and counts; the terminal frame must name the
 * right length and digest.
 */
import { createHash, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { interleave } from './support/interleave.ts';
import type { HttpTarget } from './support/raw-http.ts';
import { atLeast, type RowResult, ratio, seriesOf } from './support/report.ts';
import type { World } from './support/world.ts';

const MIB = 1024 * 1024;

interface Content {
  path: string;
  bytes: number;
  sha256: string;
}

export async function throughput(world: World): Promise<RowResult> {
  const { quick, signal, folder } = world;
  const bytes = (quick ? 64 : 256) * MIB;
  const text = writeContent(join(folder, 'text'), repeated(Buffer.from(LINES), bytes));
  const random = writeContent(join(folder, 'random'), repeated(randomBytes(8 * MIB), bytes));
  const host = await world.sshd();
  const warm = await world.warm();
  const { gateway, http } = warm;
  const [bare, floor] = [await warm.bare(host), await warm.floor(host)];

  const drained = async ({ sha256 }: Content, target: HttpTarget): Promise<number> => {
    const { ms, tail } = await http.ask('drain', target);
    const isRight = tail.includes(`"stdout_bytes":${bytes}`) && tail.includes(`"stdout_sha256":"${sha256}"`);
    if (!isRight || !tail.includes('"complete":true'))
      throw new Error(`expected ${bytes} bytes with digest ${sha256}, got ${tail.slice(-500)}`);
    return rate(bytes, ms);
  };
  const throughGateway = (content: Content, more: object = {}): Promise<number> => {
    const body = { max_output_bytes: 2 ** 30, timeout_s: 120, ...more };
    return drained(content, gateway.exec('real', ['cat', content.path], body));
  };
  const throughFloor = (content: Content, lines: 'text' | 'base64'): Promise<number> => {
    const command = `exec cat ${content.path}`;
    return drained(content, { ...floor(command), body: { command, lines } });
  };
  const throughBare = async (): Promise<number> => {
    const all = await bare.ask('drain', { command: `exec cat ${text.path}` });
    if (all.bytes !== bytes) throw new Error(`expected ${bytes} bytes, got ${all.bytes}`);
    return rate(bytes, all.ms);
  };
  const entrants = [
    { name: 'bare ssh2', run: throughBare },
    { name: 'gateway, text', run: () => throughGateway(text) },
    { name: 'gateway, random bytes', run: () => throughGateway(random) },
    { name: 'gateway, encoding base64', run: () => throughGateway(random, { encoding: 'base64' }) },
    { name: 'floor, text', run: () => throughFloor(text, 'text') },
    { name: 'floor, base64', run: () => throughFloor(random, 'base64') },
  ];
  const samples = await interleave(entrants, { rounds: quick ? 4 : 8, warmUps: quick ? 1 : 2, signal });
  const series = seriesOf(samples, 'MiB/s');
  const share = (name: string): number => ratio(series, name, 'bare ssh2');
  return {
    row: 4,
    title: `throughput as NDJSON over HTTP, ${bytes / MIB} MiB, digests on`,
    series,
    ratios: [
      { what: 'text, share of bare ssh2', value: share('gateway, text'), goal: atLeast(0.35, 0.45) },
      { what: 'random bytes, share of bare ssh2', value: share('gateway, random bytes'), goal: atLeast(0.5, 0.6) },
      { what: 'base64, share of bare ssh2', value: share('gateway, encoding base64'), goal: atLeast(0.5, 0.6) },
      { what: 'floor, text, share of bare ssh2', value: share('floor, text'), goal: null },
      { what: 'floor, base64, share of bare ssh2', value: share('floor, base64'), goal: null },
    ],
    notes: [
      ...warm.notes,
      'the floor here: each chunk digested, made a line by JSON.stringify or as base64, and written by node:http',
    ],
  };
}

function rate(bytes: number, ms: number): number {
  return bytes / MIB / (ms / 1000);
}

/** Lines as a log has them: mostly ASCII, now and then a character of two or three bytes, quotes and a backslash. */
const LINES = Array.from(
  { length: 997 },
  (_, index) =>
    `2024-05-0${index % 9} 12:34:56.${100 + index} INFO worker-${index % 16} "GET /grüße/${index}" 200 ${index * 7} µs C:\\tmp – done\n`,
).join('');

function repeated(part: Buffer, bytes: number): Buffer {
  const whole = Buffer.alloc(bytes);
  // Its end may cut a character in two: one frame that the gateway rightly sends as base64.
  whole.fill(part);
  return whole;
}

function writeContent(path: string, content: Buffer): Content {
  writeFileSync(path, content);
  return { path, bytes: content.length, sha256: createHash('sha256').update(content).digest('hex') };
}
