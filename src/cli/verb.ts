/** What a verb's file offers and gets, and what the plain verbs (a call, then a table or a document) have in common. */
import type { Command } from 'commander';
import type { CallOptions, Client } from '../client/client.ts';
import type { ListQuery, Page } from '../client/wire.ts';
import { SallyportError } from '../errors.ts';
import { addConnectOptions, type ConnectOptions, connect } from './connect.ts';
import type { Io } from './io.ts';
import { EXIT, failureDocument, neutralise, noteFailure, type Output } from './output.ts';

/** Pages of lists are at most this long. Source: contract, section 3. */
const PAGE_MAX_ITEMS = 500;

export interface Verb {
  define(command: Command, context: VerbContext): void;
}

export interface VerbContext {
  io: Io;
  output: Output;
  /** Makes a commander action of a function that resolves with the exit code. */
  action<Args extends unknown[]>(act: (...args: Args) => Promise<number>): (...args: Args) => Promise<void>;
}

export interface PlainFlags extends ConnectOptions {
  json?: boolean;
}

export interface PlainCall<Flags> {
  client: Client;
  flags: Flags;
  output: Output;
}

/** Adds a subcommand that makes one call. `act` may say how to end when all went well; otherwise that is 0. */
export function definePlain<Flags extends PlainFlags>(
  command: Command,
  { io, output, action }: VerbContext,
  // biome-ignore lint/suspicious/noConfusingVoidType: most verbs have nothing to say.
  act: (call: PlainCall<Flags>, ...operands: string[]) => Promise<number | void>,
): Command {
  addConnectOptions(command).option('--json', 'print one JSON document');
  return command.action(
    action(async (...args: unknown[]) => {
      const flags = command.opts<Flags>();
      try {
        // Behind the operands commander gives the options and the command itself.
        const operands = args.slice(0, -2) as string[];
        const exitCode = await act({ client: connect(flags, io.env), flags, output }, ...operands);
        await output.flush();
        return exitCode ?? 0;
      } catch (error) {
        noteFailure(output, error);
        if (flags.json === true) await output.json(failureDocument(error));
        return EXIT.failed;
      }
    }),
  );
}

/** The first `limit` items over as many pages as that takes. */
export async function takeItems<Query extends ListQuery, Item>(
  list: (query: Query, options?: CallOptions) => Promise<Page<Item>>,
  query: Query,
  limit: number,
): Promise<Page<Item>> {
  const items: Item[] = [];
  let next: string | null = query.after ?? null;
  do {
    const size = Math.min(limit - items.length, PAGE_MAX_ITEMS);
    const page = await list({ ...query, limit: size, after: next ?? undefined });
    items.push(...page.items);
    next = page.next;
  } while (next !== null && items.length < limit);
  return { items, next };
}

/** A list as the caller wants it; says when there is more than was asked for. */
export async function printItems<Item>(
  { flags, output }: PlainCall<PlainFlags>,
  page: Page<Item>,
  how: { header: readonly string[]; row: (item: Item) => string[] },
): Promise<void> {
  if (flags.json === true) return await output.json(page);
  await output.table(how.header, page.items.map(how.row));
  if (page.next !== null) output.note(`there are more than these ${page.items.length} (--limit)`);
}

/** One thing that was read or changed. */
export async function printItem<Item>(
  call: PlainCall<PlainFlags>,
  item: Item,
  how: { header: readonly string[]; row: (item: Item) => string[] },
): Promise<void> {
  if (call.flags.json === true) await call.output.json(item);
  else await call.output.table(how.header, [how.row(item)]);
}

/** What was done, where the gateway answers nothing worth printing. */
export async function printDone({ flags, output }: PlainCall<PlainFlags>, id: string, done: string): Promise<void> {
  if (flags.json === true) await output.json({ id, [done]: true });
  else await output.write('stdout', `${neutralise(`${done} ${id}`)}\n`);
}

/** A value of a row as a cell; lists and maps as they are written on the command line. */
export function cell(value: unknown): string {
  if (value === null || value === undefined) return '-';
  if (Array.isArray(value)) return value.map(cell).join(',');
  if (typeof value !== 'object') return String(value);
  return Object.entries(value)
    .map(([name, inner]) => `${name}=${cell(inner)}`)
    .join(',');
}

/** For options that may be given again. */
export function collect(value: string, earlier: string[] = []): string[] {
  return [...earlier, value];
}

/** A whole number, or what `option` expects. */
export function countOf(option: string, text: string, least = 1): number {
  if (/^[0-9]{1,9}$/.test(text) && Number(text) >= least) return Number(text);
  throw new SallyportError('invalid_request', `${option} takes a whole number from ${least} on; "${text}" is none`);
}

const UNIT_S = { s: 1, m: 60, h: 3600, d: 86_400 } as const;

/** `90`, `90s`, `15m`, `24h`, `30d` in seconds; null when it is no duration. */
export function parseDurationS(text: string): number | null {
  const match = /^([0-9]{1,9})([smhd]?)$/.exec(text);
  if (match === null) return null;
  const unit = (match[2] || 's') as keyof typeof UNIT_S;
  return Number(match[1]) * UNIT_S[unit];
}
