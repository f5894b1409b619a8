/** `sallyport activity`: the audit rows of a workspace or of the whole org, newest first. */
import type { ActivityQuery, ActivityView } from '../client/wire.ts';
import { SallyportError } from '../errors.ts';
import {
  cell,
  countOf,
  definePlain,
  type PlainCall,
  type PlainFlags,
  parseDurationS,
  printItems,
  takeItems,
  type Verb,
} from './verb.ts';

interface ActivityFlags extends PlainFlags {
  limit: string;
  status?: string;
  type?: string;
  actor?: string;
  since?: string;
  until?: string;
}

export const verb: Verb = {
  define(command, context) {
    command
      .argument('[workspace]', 'one workspace (default: the whole org)')
      .option('--limit <n>', 'at most so many', '100')
      .option('--status <status>', 'running, ok, error, timeout, cancelled, refused or interrupted')
      .option('--type <type>', 'e.g. workspace_exec')
      .option('--actor <actor>', 'as the rows name it')
      .option('--since <time>', 'ISO time, or how long ago: 15m, 24h, 7d')
      .option('--until <time>', 'the same')
      .option('--org <id>', 'the org to look in (admin token)');
    definePlain(command, context, listActivity);
  },
};

async function listActivity(call: PlainCall<ActivityFlags>, workspaceId?: string): Promise<void> {
  const { limit, status, type, actor, since, until } = call.flags;
  const query = { status, type, actor, since: timeOf('--since', since), until: timeOf('--until', until) };
  const { list } = call.client.activity(workspaceId ?? null);
  await printItems(call, await takeItems<ActivityQuery, ActivityView>(list, query, countOf('--limit', limit)), {
    header: ['TIME', 'STATUS', 'WORKSPACE', 'ACTOR', 'MS', 'SUMMARY', 'ID'],
    row: (item: ActivityView) =>
      [item.created_at, item.status, item.workspace_id, item.actor, item.duration_ms, item.summary, item.id].map(cell),
  });
}

function timeOf(option: string, text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const agoS = parseDurationS(text);
  const time = agoS === null ? Date.parse(text) : Date.now() - agoS * 1000;
  if (Number.isFinite(time)) return new Date(time).toISOString();
  throw new SallyportError(
    'invalid_request',
    `${option} takes an ISO time or how long ago (15m, 24h, 7d); not "${text}"`,
  );
}
