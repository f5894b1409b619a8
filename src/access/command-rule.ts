/**
 * Command rules: which argv a credential may run.
 *
 * A rule is a list of argument patterns: `*` stands for exactly one argument, `**` (last only) for the rest, also for
 * nothing; anything else must be equal byte for byte. Rules look at argv, never at shell text.
 *
 * Decision: a credential with rules has no files, terminal, registry, tokens or fleet runs, because no rule on argv
 * bounds those; a fleet run may carry a script, so `fleet:run` is out as a whole.
 */
import { z } from 'zod';
import { SallyportError } from '../errors.ts';
import { ARGV_MAX_ELEMENTS } from '../limits.ts';
import type { Caller, CommandRule, Scope } from './access.ts';
import { maskArgv, showValue } from './mask.ts';

/** The scopes that make sense beside command rules. */
export const SCOPES_WITH_RULES: ReadonlySet<Scope> = new Set<Scope>([
  'exec',
  'workspaces:read',
  'activity:read',
  'diagnose',
]);

/** Rules travel inside the token and the token in a header; common servers and proxies take 8 KiB of it. */
const RULES_MAX_BYTES = 4096;
const ONE = '*';
const REST = '**';

const patternSchema = z
  .string()
  .refine((text) => !/\0|\p{Cs}/u.test(text), { error: 'expected text without NUL and without lone surrogates' });

const ruleSchema = z
  .array(patternSchema)
  .min(1)
  .max(ARGV_MAX_ELEMENTS)
  .refine((rule) => !rule.slice(0, -1).includes(REST), { error: 'expected "**" only as the last element' });

export const commandRulesSchema = z
  .array(ruleSchema)
  .min(1, { error: 'expected at least one rule; leave "allow" out for a token without command rules' })
  .refine((rules) => Buffer.byteLength(JSON.stringify(rules)) <= RULES_MAX_BYTES, {
    error: `expected at most ${RULES_MAX_BYTES} bytes of JSON`,
  });

/** Stands for an argument that no rule names literally. */
const ANY = Symbol('any argument');
type Shape = readonly (string | typeof ANY)[];

/** The first rule that allows this argv, or null. */
export function matchRule(rules: readonly CommandRule[], argv: readonly string[]): CommandRule | null {
  return rules.find((rule) => covers(rule, argv)) ?? null;
}

function covers(rule: CommandRule, shape: Shape): boolean {
  const hasRest = rule.at(-1) === REST;
  const fixed = hasRest ? rule.slice(0, -1) : rule;
  if (hasRest ? shape.length < fixed.length : shape.length !== fixed.length) return false;
  return fixed.every((pattern, index) => pattern === ONE || pattern === shape[index]);
}

/**
 * The rule that allows the command; null for a caller without rules. Throws `exec_command_forbidden`, also when a
 * caller with rules sets `env` or `cwd`: either can make an allowed program do something else.
 */
export function requireAllowed(
  caller: Caller,
  command: { argv: readonly string[]; env: Readonly<Record<string, string>>; cwd: string | null },
): CommandRule | null {
  if (caller.allow === null) return null;
  if (Object.keys(command.env).length > 0) throw forbidden('a credential with command rules may not set "env"');
  if (command.cwd !== null) throw forbidden('a credential with command rules may not set "cwd"');
  const rule = matchRule(caller.allow, command.argv);
  if (rule !== null) return rule;
  throw forbidden(`no command rule of this credential allows ${showValue(maskArgv(command.argv).join(' '))}`);
}

function forbidden(message: string): SallyportError {
  return new SallyportError('exec_command_forbidden', message);
}

/**
 * Whether every argv that `inner` allows is allowed by `outer`. Null means no rules, so everything. Exact for lists of
 * rules (an argument has more possible values than rules can name), and false for null inside rules, even `["**"]`:
 * no rules also means env and cwd.
 *
 * Why one word per length is enough: put a value that no rule names wherever `inner` says "any". An outer rule that
 * allows that word does so through `*` or `**` there, so it allows every other value too.
 */
export function isNarrower(outer: readonly CommandRule[] | null, inner: readonly CommandRule[] | null): boolean {
  if (outer === null) return true;
  if (inner === null) return false;
  const longest = Math.max(0, ...outer.map((rule) => rule.length));
  return inner.every((rule) => shapes(rule, longest).every((shape) => outer.some((wide) => covers(wide, shape))));
}

/** One shape per length that the rule allows, up to the length after which no rule of `outer` tells them apart. */
function shapes(rule: CommandRule, longest: number): Shape[] {
  const hasRest = rule.at(-1) === REST;
  const fixed: Shape = (hasRest ? rule.slice(0, -1) : rule).map((pattern) => (pattern === ONE ? ANY : pattern));
  if (!hasRest) return [fixed];
  const more = Math.max(0, longest - fixed.length) + 1;
  const all = Array.from({ length: more + 1 }, (_, count) => [...fixed, ...Array<typeof ANY>(count).fill(ANY)]);
  return all.filter((shape) => shape.length > 0); // no command is without a program
}
