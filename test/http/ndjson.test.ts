import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SallyportError } from '../../src/errors.ts';
import { frameLine } from '../../src/http/ndjson.ts';
import { endOf } from './fake-gateway.ts';

const run = { execId: 'e-1' };

/** As the bytes on the wire are read by a client. */
function wire(line: string): string {
  return Buffer.from(line, 'latin1').toString('utf8');
}

describe('output frames', () => {
  test('have exactly the members of the contract, in its order', () => {
    const line = frameLine({ kind: 'output', stream: 'stdout', bytes: Buffer.from('a"b\\c\n'), text: true });
    expect(wire(line)).toBe('{"stream":"stdout","data":"a\\"b\\\\c\\n","truncated":false}\n');
  });

  test('that are not text are base64', () => {
    const line = frameLine({ kind: 'output', stream: 'stderr', bytes: Buffer.from([0xff, 0x00]), text: false });
    expect(line).toBe('{"stream":"stderr","data":"/wA=","encoding":"base64","truncated":false}\n');
  });

  test('carry every character of Unicode', () => {
    for (let from = 0; from < 0x110000; from += 0x1000) {
      const points = Array.from({ length: 0x1000 }, (_, index) => from + index);
      const text = String.fromCodePoint(...points.filter((point) => point < 0xd800 || point > 0xdfff));
      const line = wire(frameLine({ kind: 'output', stream: 'stdout', bytes: Buffer.from(text), text: true }));
      expect(JSON.parse(line).data === text, `from U+${from.toString(16)}`).toBe(true);
      expect(line.indexOf('\n')).toBe(line.length - 1);
    }
  });

  test.each(['\u2028\u2029', '\x7f', '\x00\x1b[31m\x9b', '"\\/', '\ufffd\ufeff', '😀'])('carry %j', (text) => {
    const line = wire(frameLine({ kind: 'output', stream: 'stdout', bytes: Buffer.from(text), text: true }));
    expect(JSON.parse(line).data).toBe(text);
  });

  test('carry any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (array) => {
        const bytes = Buffer.from(array);
        const frame = JSON.parse(wire(frameLine({ kind: 'output', stream: 'stdout', bytes, text: false })));
        expect(Buffer.from(frame.data, 'base64').equals(bytes)).toBe(true);
      }),
    );
  });
});

test('the marker of cut output stands alone in its frame', () => {
  expect(frameLine({ kind: 'truncated', stream: 'stdout', capBytes: 1024 })).toBe(
    '{"stream":"stdout","data":"\\n[output truncated at 1024 bytes]","truncated":true}\n',
  );
});

describe('the terminal frame', () => {
  const counts = `"stdout_bytes":3,"stderr_bytes":1,"stdout_sha256":"aa","stderr_sha256":"bb"`;
  const read = { stdoutBytes: 3, stderrBytes: 1, stdoutSha256: 'aa', stderrSha256: 'bb' };

  test('of a program that ended by itself', () => {
    expect(frameLine(endOf(run, { ...read, exitCode: 3 }))).toBe(
      `{"exit_code":3,"outcome":"exited","signal":null,"duration_ms":12,"exec_id":"e-1",${counts},"complete":true}\n`,
    );
  });

  test('names survivors when somebody looked, also when nobody could', () => {
    const ended = (survivors: number[] | null) => JSON.parse(frameLine(endOf(run, { survivors }))).survivors;
    expect(ended([7])).toEqual([7]);
    expect(ended(null)).toBe(null);
    expect(frameLine(endOf(run))).not.toContain('survivors');
  });

  test('of a deadline names the deadline, and is never complete', () => {
    const error = new SallyportError('exec_timeout', 'ended after 30 s');
    const end = endOf(run, { ...read, exitCode: null, error, outcome: 'timed_out', survivors: [] });
    expect(frameLine(end)).toBe(
      `{"error":"ended after 30 s","code":"exec_timeout","outcome":"timed_out","timeout_s":30,"duration_ms":12,` +
        `"exec_id":"e-1",${counts},"complete":false,"survivors":[]}\n`,
    );
  });

  test('of another failure has no deadline and names the step', () => {
    const error = new SallyportError('connection_lost', 'lost', { failedStep: 'channel' });
    const frame = JSON.parse(frameLine(endOf(run, { exitCode: null, error, outcome: 'connection_lost' })));
    expect(frame).toMatchObject({ code: 'connection_lost', failed_step: 'channel', complete: false });
    expect(frame).not.toHaveProperty('timeout_s');
  });

  test('says what to do, in any script, and hides what is internal', () => {
    const told = new SallyportError('host_key_mismatch', 'ключ – falsch', { remedy: 'ask 管理员' });
    const hidden = new SallyportError('internal', 'ECONNREFUSED 10.0.0.7:5432');
    const textOf = (error: SallyportError) => JSON.parse(wire(frameLine(endOf(run, { exitCode: null, error })))).error;
    expect(textOf(told)).toBe('ключ – falsch; ask 管理员');
    expect(textOf(hidden)).toBe('something went wrong inside the gateway');
  });
});
