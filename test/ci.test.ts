/** .ci/run says what the runner said, and is green only when everything ran and passed. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { requireProgram, requireSshd } from './support/requirements.ts';

const script = fileURLToPath(new URL('../.ci/run', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'sallyport-ci-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs it with an npm that prints `summary` for `npm test` and ends with `status`. */
function runWith(summary: string, status: number): { status: number | null; lastLine: string | undefined } {
  const npm = `#!/bin/sh\n[ "$1" = ci ] && exit\ncat <<'END'\n${summary}\nEND\nexit ${status}\n`;
  writeFileSync(join(folder, 'npm'), npm, { mode: 0o755 });
  const ended = spawnSync(script, { env: { ...process.env, PATH: `${folder}:${process.env.PATH}` }, encoding: 'utf8' });
  return { status: ended.status, lastLine: ended.stdout.trimEnd().split('\n').at(-1) };
}

const ready = [
  requireSshd(),
  requireProgram('/usr/bin/zsh', 'zsh'),
  requireProgram('/usr/bin/tcsh', 'tcsh'),
  requireProgram('/usr/bin/fish', 'fish'),
  requireProgram('/usr/bin/podman', 'podman'),
  requireProgram('/usr/sbin/runc', 'runc'),
  requireProgram('/usr/bin/busybox', 'busybox-static'),
  requireProgram('/usr/bin/curl', 'curl'),
];

// It would install what is missing, which is nothing that a test should do to a machine.
describe.skipIf(ready.includes(false))('.ci/run', () => {
  test.each([
    [
      'everything passed',
      ' Test Files  2 passed (2)\n      Tests  12 passed (12)\n   Start at  10:00:00',
      0,
      0,
      '12 passed, 0 failed',
    ],
    [
      'the runner colours its words',
      '\u001b[2m      Tests \u001b[22m \u001b[1m\u001b[32m3 passed\u001b[39m (3)',
      0,
      0,
      '3 passed, 0 failed',
    ],
    [
      'a test printed a summary of its own',
      ' Tests  9 failed (9)\n Test Files  1 passed (1)\n      Tests  4 passed (4)',
      0,
      0,
      '4 passed, 0 failed',
    ],
    [
      'tests failed',
      ' Test Files  1 failed | 1 passed (2)\n      Tests  2 failed | 10 passed (12)',
      1,
      1,
      '10 passed, 2 failed',
    ],
    [
      'a hook failed, and no test',
      ' Test Files  1 failed (1)\n      Tests  12 passed (12)',
      1,
      1,
      '12 passed, 1 failed',
    ],
    [
      'a test was skipped',
      ' Test Files  2 passed (2)\n      Tests  12 passed | 1 skipped (13)',
      0,
      1,
      '12 passed, 1 failed',
    ],
    [
      'a whole file was skipped',
      ' Test Files  1 passed | 1 skipped (2)\n      Tests  12 passed (12)',
      0,
      1,
      '12 passed, 1 failed',
    ],
    [
      'a test is still to be written',
      ' Test Files  2 passed (2)\n      Tests  12 passed | 1 todo (13)',
      0,
      1,
      '12 passed, 1 failed',
    ],
    ['nothing ran', 'No test files found', 0, 1, '0 passed, 1 failed'],
    ['the type check failed', "src/a.ts(1,1): error TS2304: Cannot find name 'x'.", 2, 1, '0 passed, 1 failed'],
  ])('%s', (_what, summary, npmStatus, status, lastLine) => {
    expect(runWith(summary, npmStatus)).toMatchObject({ status, lastLine });
  });

  test('the runner is told to take skips for failures', () => {
    writeFileSync(join(folder, 'npm'), '#!/bin/sh\necho "$1 $CI $SALLYPORT_FORBID_SKIPS"\n', { mode: 0o755 });
    const { stdout } = spawnSync(script, {
      env: { ...process.env, PATH: `${folder}:${process.env.PATH}` },
      encoding: 'utf8',
    });
    expect(stdout).toContain('ci true 1\ntest true 1\n');
  });
});
