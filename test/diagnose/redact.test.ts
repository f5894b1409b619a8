import { describe, expect, it } from 'vitest';
import { maskText } from '../../src/access/mask.ts';
import { cutMiddle, safeOutput, safeText, tailOf } from '../../src/diagnose/redact.ts';

const safe = (text: string, cutBefore = false): string => safeText(Buffer.from(text), { cutBefore, redact: maskText });

describe('text from a host', () => {
  it('loses colours and titles, keeps lines, and shows other control characters', () => {
    expect(safe('\u001b[0;32m  OK  \u001b[0m up\r\nnext\rover\u001b]0;title\u0007\u0000\u0007\u202e.\t|')).toBe(
      '  OK   up\nnext\nover\\u0000\\u0007\\u202e.\t|',
    );
  });

  it('has its secrets masked, also when they are coloured in the middle', () => {
    expect(safe('db password=hun\u001b[1mter2 ok')).toBe('db password=*** ok');
    expect(safe('key AKIAIOSFODNN7EXAMPLE')).toBe('key ***');
  });

  it('that begins inside a private key loses it up to its end', () => {
    const rest = 'c2VjcmV0\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\nafter';
    expect(safe(rest, true)).toBe('***\nafter');
    expect(safe(`before\n-----BEGIN OPENSSH PRIVATE KEY-----\n${rest}`, true)).toBe('before\n***\nafter');
  });

  it('that is not UTF-8 is shown all the same', () => {
    expect(safeText(Buffer.from([0x61, 0xff, 0x62]), { cutBefore: false, redact: maskText })).toBe('a\ufffdb');
  });

  it('is not given out when the redactor fails', () => {
    const redact = (): string => {
      throw new Error('broken');
    };
    expect(() => safeText(Buffer.from('x'), { cutBefore: false, redact })).toThrow('broken');
  });
});

describe('output without its middle', () => {
  const cut = (head: string, tail: string): string =>
    safeOutput(
      { head: Buffer.from(head), tail: Buffer.from(tail), droppedBytes: 7 },
      { redact: maskText, maxBytes: 65_536 },
    ).text;

  it('loses the lines at the cut: half a secret is known by no rule', () => {
    expect(cut('one\nkey AKIAIOSFODN', 'N7EXAMPLE\nlast\n')).toBe(
      'one\n[7 bytes and the lines at both ends of them left out]\nlast\n',
    );
  });

  it('does not show the rest of a private key that began before the cut', () => {
    const text = cut(
      '-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n',
      'b\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\nlast\n',
    );
    expect(text).not.toContain('c2VjcmV0');
    expect(text).toContain('last');
  });

  it('that was kept whole is whole', () => {
    const whole = { head: Buffer.from('all\n'), tail: null, droppedBytes: 0 };
    expect(safeOutput(whole, { redact: maskText, maxBytes: 65_536 })).toEqual({ text: 'all\n', truncated: false });
  });

  it('is at most so many bytes, also of characters that take more', () => {
    const { output, truncated } = cutMiddle('é\\u0000'.repeat(20_000), 65_536);
    expect(Buffer.byteLength(output)).toBeLessThanOrEqual(65_536);
    expect(truncated).toBe(true);
    expect(cutMiddle('short', 100)).toEqual({ output: 'short' });
  });
});

describe('the tail of a text', () => {
  it('begins with a line', () => {
    expect(tailOf('first\nsecond\nthird\n', 12)).toBe('third\n');
    expect(tailOf('short\n', 14)).toBe('short\n');
  });

  it('of one long line is its end', () => {
    expect(tailOf('x'.repeat(50), 10)).toBe('x'.repeat(10));
  });
});
