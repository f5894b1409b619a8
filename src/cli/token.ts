/** `sallyport token`: create, list, revoke. A new token is the only thing on stdout, so that `$(…)` takes it. */
import type { TokenBody, TokenView } from '../client/wire.ts';
import { SallyportError } from '../errors.ts';
import { neutralise } from './output.ts';
import {
  cell,
  collect,
  countOf,
  definePlain,
  type PlainCall,
  type PlainFlags,
  parseDurationS,
  printDone,
  printItems,
  takeItems,
  type Verb,
} from './verb.ts';

interface CreateFlags extends PlainFlags {
  workspace?: string;
  scope?: string[];
  allow?: string[];
  expiresIn?: string;
}

export const verb: Verb = {
  define(command, context) {
    const create = command
      .command('create <name>')
      .description('issue a token, printed once')
      .option('--workspace <id>', 'bind it to one workspace (default: a token of the org)')
      .option('--scope <scope...>', 'what it may do, e.g. exec activity:read')
      .option('--allow <pattern>', 'may run only such argv, e.g. "systemctl status *" or a JSON array', collect)
      .option('--expires-in <time>', 'e.g. 3600, 90m, 24h, 30d')
      .option('--org <id>', 'the org it is for (admin token)');
    definePlain(create, context, createToken);

    const list = command
      .command('list')
      .description('list tokens, newest first')
      .option('--limit <n>', 'at most so many', '100')
      .option('--org <id>', 'the org to look in (admin token)');
    definePlain(list, context, listTokens);

    const revoke = command
      .command('revoke <id>')
      .description('revoke a token; what it runs is ended')
      .option('--org <id>', 'the org it belongs to (admin token)');
    definePlain(revoke, context, async (call, id = '') => {
      await call.client.tokens.revoke(id);
      await printDone(call, id, 'revoked');
    });
  },
};

async function createToken({ client, flags, output }: PlainCall<CreateFlags>, name = ''): Promise<void> {
  const token = await client.tokens.create(tokenBodyOf(name, flags));
  if (flags.json === true) return await output.json(token);
  await output.write('stdout', `${neutralise(token.token)}\n`);
  output.note(`token ${token.id}, shown this once; it expires ${cell(token.expires_at)}`);
}

function tokenBodyOf(name: string, flags: CreateFlags): TokenBody {
  return {
    kind: flags.workspace === undefined ? 'org' : 'workspace',
    workspace_id: flags.workspace,
    org_id: flags.org,
    name,
    scopes: flags.scope ?? [],
    allow: flags.allow?.map(patternOf),
    expires_in_s: flags.expiresIn === undefined ? undefined : lifeOf(flags.expiresIn),
  };
}

/** Words are enough for most patterns; JSON is for arguments that hold spaces. */
function patternOf(text: string): string[] {
  const pattern: unknown = text.trimStart().startsWith('[') ? parseJson(text) : text.trim().split(/\s+/);
  const isPattern = Array.isArray(pattern) && pattern.every((word) => typeof word === 'string' && word !== '');
  if (isPattern && pattern.length > 0) return pattern;
  throw new SallyportError('invalid_request', `--allow takes words or a JSON array of strings; "${text}" is neither`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The caller names what was expected.
    return null;
  }
}

function lifeOf(text: string): number {
  const seconds = parseDurationS(text);
  if (seconds !== null) return seconds;
  throw new SallyportError('invalid_request', `--expires-in takes a time such as 3600, 90m, 24h or 30d; not "${text}"`);
}

async function listTokens(call: PlainCall<PlainFlags & { limit: string }>): Promise<void> {
  const page = await takeItems(call.client.tokens.list, {}, countOf('--limit', call.flags.limit));
  await printItems(call, page, {
    header: ['ID', 'KIND', 'WORKSPACE', 'NAME', 'SCOPES', 'EXPIRES', 'REVOKED'],
    row: (token: TokenView) =>
      [token.id, token.kind, token.workspace_id, token.name, token.scopes, token.expires_at, token.revoked_at].map(
        cell,
        collect,
      ),
  });
}
