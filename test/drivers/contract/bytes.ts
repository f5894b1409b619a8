/** What goes in and comes out is exact, kept apart, and bounded while nobody reads. */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { OUTPUT_BUFFER_MAX_BYTES, STDIN_MAX_BYTES } from '../../../src/limits.ts';
import { fixture } from '../../support/fixtures.ts';
import { bytesWritten } from '../../support/processes.ts';
import { waitUntil, waitUntilStill } from '../../support/wait.ts';
import { collect, digest, exitOf, type Rig } from './rig.ts';

const MIB = 1024 * 1024;
/** What pipes, the SSH server and the sockets hold between a program and a reader that has stopped. */
const ON_THE_WAY_BYTES = 8 * MIB;

export function bytesContract(rig: Rig): void {
  const succeeded = { kind: 'exited', code: 0 } as const;

  describe('stdin', () => {
    test.each([
      ['absent', null],
      ['empty', Buffer.alloc(0)],
    ])('%s is end-of-file at once', async (_what, stdin) => {
      expect(await rig.run(['cat'], { stdin })).toEqual({
        exit: succeeded,
        stdout: Buffer.alloc(0),
        stderr: Buffer.alloc(0),
      });
    });

    test('1 MiB of it arrives exactly, and comes back exactly', async () => {
      const stdin = randomBytes(STDIN_MAX_BYTES);
      const { exit, stdout } = await rig.run(['cat'], { stdin });
      expect(exit).toEqual(succeeded);
      expect(stdout.equals(stdin)).toBe(true);
    });

    test('the program gets what the start did not need, from the first byte on', async () => {
      const stdin = Buffer.from('first line\nexit 9\n\n  last, without a newline \\');
      expect((await rig.run(['cat'], { stdin })).stdout.toString()).toBe(stdin.toString());
    });

    test('all 256 byte values go through, both ways', async () => {
      const stdin = Buffer.from(Array.from({ length: 1024 }, (_, i) => i % 256));
      const { stdout, stderr } = await rig.run(['/bin/sh', '-c', 'tee /dev/stderr'], { stdin });
      expect([stdout.equals(stdin), stderr.equals(stdin)]).toEqual([true, true]);
    });

    test.each([
      ['never reads it', ['true']],
      ['reads one byte of it', ['head', '-c', '1']],
      ['closes it', ['/bin/sh', '-c', 'exec <&-; exit 0']],
    ] as const)('a program that %s ends all the same', async (_what, argv) => {
      expect((await rig.run([...argv], { stdin: randomBytes(STDIN_MAX_BYTES) })).exit).toEqual(succeeded);
    });
  });

  describe('output', () => {
    test('a program that says nothing gives no chunk', async () => {
      const program = await rig.start(['true']);
      for await (const chunk of program.output) expect.unreachable(`got ${JSON.stringify(chunk)}`);
      expect(program.outputEnded).toBe(true);
      expect(await exitOf(program)).toEqual(succeeded);
    });

    test('stdout and stderr are kept apart, and every byte value is kept', async () => {
      const { stdout, stderr } = await rig.run([fixture('all-bytes')]);
      const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
      expect(stdout).toEqual(bytes);
      expect(stderr).toEqual(Buffer.from(bytes).reverse());
    });

    test('characters written byte by byte come together again', async () => {
      expect((await rig.run([fixture('split-utf8')])).stdout.toString()).toBe('ä€😀');
    });

    test('output leaves while the program still runs', async () => {
      const program = await rig.start(['/bin/sh', '-c', 'printf x; exec sleep 600']);
      const { value } = await program.output[Symbol.asyncIterator]().next();
      expect(value).toEqual({ stream: 'stdout', bytes: Buffer.from('x') });
      expect(await program.kill()).toEqual([]);
    });

    test('a program that closes its output runs on, and its exit is told', async () => {
      const program = await rig.start(['/bin/sh', '-c', 'echo first; exec >&- 2>&-; sleep 0.1; exit 5']);
      expect((await collect(program.output)).stdout.toString()).toBe('first\n');
      expect(await exitOf(program)).toEqual({ kind: 'exited', code: 5 });
    });

    test('50 MiB on stdout and 5 on stderr arrive exactly', { timeout: 60_000 }, async () => {
      const argv = [fixture('noisy'), String(50 * MIB), String(5 * MIB)] as const;
      const program = await rig.start([...argv]);
      const [digests, exit] = await Promise.all([digest(program.output), exitOf(program, 50_000)]);
      expect(exit).toEqual(succeeded);
      expect(digests).toEqual({
        stdout: sha256Of(`"$0" "$1" "$2" 2>/dev/null`, argv),
        stderr: sha256Of(`"$0" "$1" "$2" 2>&1 >/dev/null`, argv),
      });
    });

    test('an exit is known although nobody has read the output, which is still there', async () => {
      const program = await rig.start(['/bin/sh', '-c', 'echo kept; echo too >&2; exit 4']);
      expect(await exitOf(program)).toEqual({ kind: 'exited', code: 4 });
      const { stdout, stderr } = await collect(program.output);
      expect([stdout.toString(), stderr.toString()]).toEqual(['kept\n', 'too\n']);
    });

    test.each([
      ['stdout', `exec yes 'one line of endless output'`],
      ['stderr', `exec yes 'one line of endless output' >&2`],
    ])('unread %s stops the program after a bounded amount, and reading lets it go on', async (_stream, script) => {
      const program = await rig.start(['/bin/sh', '-c', script]);
      await waitUntil('the program writes', () => bytesWritten(program.pid) > 0);
      const stoppedAt = await waitUntilStill('the writing', () => bytesWritten(program.pid));
      expect(stoppedAt).toBeLessThan(OUTPUT_BUFFER_MAX_BYTES + ON_THE_WAY_BYTES);

      let read = 0;
      for await (const { bytes } of program.output) {
        read += bytes.length;
        if (read > stoppedAt + 4 * MIB) break;
      }
      expect(bytesWritten(program.pid)).toBeGreaterThan(stoppedAt);
      expect(await program.kill()).toEqual([]);
    });

    test('a program whose output nobody reads does not hold up the others of the session', async () => {
      const stalled = await rig.start([fixture('forever')]);
      await waitUntil('it writes', () => bytesWritten(stalled.pid) > 0);
      await waitUntilStill('the writing', () => bytesWritten(stalled.pid));
      const { exit, stdout } = await rig.run([fixture('noisy'), String(4 * MIB), '0']);
      expect([exit, stdout.length]).toEqual([succeeded, 4 * MIB]);
      expect(await stalled.kill()).toEqual([]);
    });

    test('a reader that throws or breaks off spoils nothing for the others', async () => {
      const [broken, other] = [
        await rig.start([fixture('forever')]),
        await rig.start(['cat'], { stdin: Buffer.from('x') }),
      ];
      const reading = (async () => {
        for await (const _ of broken.output) throw new Error('the reader failed');
      })();
      await expect(reading).rejects.toThrow('the reader failed');
      broken.release();
      expect((await collect(other.output)).stdout.toString()).toBe('x');
      expect((await rig.run(['true'])).exit).toEqual(succeeded);
    });
  });
}

/** What the same program writes when it is run here, without anything in between. */
function sha256Of(script: string, argv: readonly string[]): string {
  const output = execFileSync('/bin/sh', ['-c', script, ...argv], { maxBuffer: 64 * MIB });
  return createHash('sha256').update(output).digest('hex');
}
