import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Caller, CommandRule } from '../../src/access/access.ts';
import { commandRulesSchema, isNarrower, matchRule, requireAllowed } from '../../src/access/command-rule.ts';
import { aCaller } from './a-caller.ts';

const RULES: CommandRule[] = [['journalctl', '**'], ['systemctl', 'status', '*'], ['*', '--version'], ['echo']];

describe('matchRule', () => {
  test.each([
    [['journalctl'], 0],
    [['journalctl', '-u', 'nginx', '-n', '50'], 0],
    [['systemctl', 'status', 'nginx'], 1],
    [['systemctl', 'status', ''], 1],
    [['systemctl', 'status', '*'], 1],
    [['bash', '--version'], 2],
    [['echo'], 3],
  ])('%j is allowed by rule %i', (argv, index) => {
    expect(matchRule(RULES, argv)).toBe(RULES[index]);
  });

  test.each([
    [['systemctl', 'status']],
    [['systemctl', 'status', 'a', 'b']],
    [['systemctl', 'stop', 'nginx']],
    [['/usr/bin/journalctl']],
    [['journalctl ']],
    [['JOURNALCTL']],
    [['journalctl -u nginx; rm -rf /']],
    [['echo', 'x']],
    [['']],
  ])('%j is allowed by no rule', (argv) => {
    expect(matchRule(RULES, argv)).toBeNull();
  });

  test('two spellings of one letter are different arguments', () => {
    expect(matchRule([['caf\u00e9']], ['cafe\u0301'])).toBeNull();
  });

  test('no rules allow nothing', () => {
    expect(matchRule([], ['true'])).toBeNull();
  });
});

describe('parsing rules', () => {
  const parse = (raw: unknown) => commandRulesSchema.safeParse(raw).success;

  test('takes literals, * anywhere and ** at the end', () => {
    expect(parse([['a', '*', '**'], ['**'], ['*']])).toBe(true);
  });

  test.each([
    ['** before the end', [['a', '**', 'b']]],
    ['** twice', [['a', '**', '**']]],
    ['an empty list', []],
    ['an empty rule', [[]]],
    ['a string for a rule', ['ls']],
    ['a number for an argument', [['a', 1]]],
    ['NUL', [['a\0']]],
    ['a lone surrogate', [['\ud800']]],
    ['more arguments than a command may have', [Array(257).fill('a')]],
    ['more bytes than a token can carry', [['é'.repeat(2048)]]],
  ])('refuses %s', (_what, raw) => {
    expect(parse(raw)).toBe(false);
  });
});

describe('requireAllowed', () => {
  const plain = { argv: ['systemctl', 'status', 'nginx'], env: {}, cwd: null };
  const ruled: Caller = aCaller({ allow: RULES });

  test('answers the rule that allows the command', () => {
    expect(requireAllowed(ruled, plain)).toBe(RULES[1]);
  });

  test('a caller without rules may run anything, with env and cwd', () => {
    expect(requireAllowed(aCaller({}), { argv: ['rm', '-rf', '/'], env: { A: '1' }, cwd: '/' })).toBeNull();
  });

  test.each([
    ['another command', { ...plain, argv: ['systemctl', 'stop', 'nginx'] }, 'systemctl stop nginx'],
    ['env', { ...plain, env: { LD_PRELOAD: '/tmp/x.so' } }, '"env"'],
    ['cwd', { ...plain, cwd: '/tmp' }, '"cwd"'],
  ])('refuses %s and says so', (_what, command, text) => {
    expect(() => requireAllowed(ruled, command)).toThrow(
      expect.objectContaining({ code: 'exec_command_forbidden', message: expect.stringContaining(text) }),
    );
  });

  test('a refused command is named without its secrets', () => {
    expect(() => requireAllowed(ruled, { ...plain, argv: ['mysql', '--password', 'hunter2'] })).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining('hunter2') }),
    );
  });
});

describe('isNarrower', () => {
  test('everything is narrower than no rules, and nothing without rules is narrower than rules', () => {
    expect(isNarrower(null, null)).toBe(true);
    expect(isNarrower(null, [['a']])).toBe(true);
    expect(isNarrower([['**']], null)).toBe(false);
  });

  test('several rules together may cover one', () => {
    expect(isNarrower([['a'], ['a', '*', '**']], [['a', '**']])).toBe(true);
    expect(isNarrower([['a'], ['a', '*', '*', '**']], [['a', '**']])).toBe(false);
  });

  test('a literal star in a command is not the pattern', () => {
    expect(isNarrower([['a', 'b']], [['a', '*']])).toBe(false);
  });

  // 'c' stands in no rule: it is the value that no rule names. Lists one longer than any rule show what a `**` does.
  const argvs = allArgvs(['a', 'b', 'c'], 5);
  const rule = fc
    .tuple(fc.array(fc.constantFrom('a', 'b', '*'), { maxLength: 4 }), fc.boolean())
    .map(([fixed, rest]) => (rest || fixed.length === 0 ? [...fixed.slice(0, 3), '**'] : fixed));
  const rules = fc.array(rule, { minLength: 1, maxLength: 4 });

  test('says exactly what trying every command says', () => {
    const seen = { narrower: 0, not: 0 };
    fc.assert(
      fc.property(rules, rules, (outer, inner) => {
        const answer = isNarrower(outer, inner);
        seen[answer ? 'narrower' : 'not'] += 1;
        expect(answer).toBe(argvs.every((argv) => !matchRule(inner, argv) || matchRule(outer, argv)));
      }),
      { numRuns: 2000 },
    );
    expect(Math.min(seen.narrower, seen.not)).toBeGreaterThan(50);
  });
});

function allArgvs(alphabet: string[], maxLength: number): string[][] {
  let longest: string[][] = [[]];
  const all: string[][] = [];
  for (let length = 1; length <= maxLength; length += 1) {
    longest = longest.flatMap((argv) => alphabet.map((argument) => [...argv, argument]));
    all.push(...longest);
  }
  return all;
}
