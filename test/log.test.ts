import { describe, expect, test } from 'vitest';
import { createLog } from '../src/log.ts';

function lines(): { log: ReturnType<typeof createLog>; text(): string; last(): Record<string, unknown> } {
  const written: string[] = [];
  const log = createLog('info', { write: (line) => void written.push(line) });
  return { log, text: () => written.join(''), last: () => JSON.parse(written.at(-1) ?? '') };
}

describe('a log line', () => {
  test('shows no field that has the name of a secret, on two levels', () => {
    const { log, text } = lines();
    const names = ['authorization', 'token', 'password', 'secret', 'cookie', 'stdin', 'env', 'body', 'headers'];
    for (const name of names) log.info({ [name]: `canary-1-${name}`, inner: { [name]: `canary-2-${name}` } }, 'x');
    expect(text()).not.toContain('canary');
    expect(text().match(/\[cut out\]/g)).toHaveLength(names.length * 2);
  });

  test('shows what has its own way to be shown that way, below the first level too', () => {
    const { log, last } = lines();
    const at = new Date(0);
    log.info({ at, inner: { at, url: new URL('http://a.test/') }, list: [at], url: new URL('http://b.test/') }, 'x');
    const shown = '1970-01-01T00:00:00.000Z';
    expect(last()).toMatchObject({
      ...{ at: shown, inner: { at: shown, url: 'http://a.test/' }, list: [shown], url: 'http://b.test/' },
    });
  });

  test('of an error has its message, code and causes, and nothing else that hangs on it', () => {
    const { log, text, last } = lines();
    const inner = Object.assign(new Error('refused by Authorization: Bearer canary-in-text'), { code: 'ECONNREFUSED' });
    const error = Object.assign(new Error('no answer', { cause: inner }), {
      request: { headers: { 'x-api-key': 'canary-in-request' } },
      parameters: ['canary-in-query'],
    });
    log.error({ err: error }, 'failed');
    expect(last().err).toMatchObject({
      type: 'Error',
      message: 'no answer',
      stack: expect.stringContaining('log.test.ts'),
      cause: { code: 'ECONNREFUSED', message: 'refused by Authorization: ***' },
    });
    expect(text()).not.toContain('canary');
  });

  test('ends, however long the chain of causes is', () => {
    const { log, text } = lines();
    const error = new Error('round');
    error.cause = error;
    log.error({ err: error }, 'failed');
    expect(text().length).toBeLessThan(20_000);
  });

  test.each([
    ['ESC', '\u001b[2J'],
    ['a line break', '\r\n{"level":60}'],
    ['DEL', '\u007f'],
    ['the one-character CSI', '\u009b31m'],
    ['OSC', '\u009d0;title\u009c'],
    ['a line separator', '\u2028'],
    ['a turn of direction', '\u202e'],
    ['a mark that turns it too', '\u061c'],
    ['an isolate', '\u2066'],
  ])('carries %s only escaped, in fields and in the message', (_what, hostile) => {
    const { log, text, last } = lines();
    log.info({ field: `a${hostile}b` }, `c${hostile}d`);
    expect(text().trimEnd()).toMatch(/^[^\p{Cc}\p{Cf}\u2028\u2029]*$/u);
    expect(last()).toMatchObject({ field: `a${hostile}b`, msg: `c${hostile}d` });
  });
});
