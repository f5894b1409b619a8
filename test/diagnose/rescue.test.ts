/** Sections over a session whose programs the test plays; what a real host says is in the journey. */
import { describe, expect, it } from 'vitest';
import { maskText } from '../../src/access/mask.ts';
import type { Diagnosis } from '../../src/diagnose/diagnose.ts';
import { createRescue, type Rescue, type Section } from '../../src/diagnose/rescue.ts';
import { SECTIONS } from '../../src/diagnose/sections.ts';
import { STEPS } from '../../src/errors.ts';
import type { Pool } from '../../src/sessions/pool.ts';
import type { Exit, Process, Session } from '../../src/sessions/session.ts';
import type { Workspace } from '../../src/workspace.ts';

const workspace: Workspace = {
  id: 'ws-1',
  orgId: 'org-a',
  name: 'one',
  tier: 3,
  labels: {},
  target: { driver: 'ssh', host: 'h', port: 22, osUser: 'u' },
};

type Answer = { code: number; output?: string | Buffer };

function diagnosisOf(canRun: boolean): Diagnosis {
  return {
    ok: canRun,
    firstFailure: canRun ? null : 'login',
    cause: null,
    remedy: null,
    steps: STEPS.map((name) => ({ name, ok: canRun, duration_ms: 1 })),
    instance: null,
    consoleTail: null,
  };
}

function play(
  answer: (argv: readonly string[]) => Answer,
  how: { canRun?: boolean; redact?: (text: string) => string } = {},
) {
  const ran: string[][] = [];
  const kept: Rescue[] = [];
  let leases = 0;
  const session = {
    async start({ argv }: { argv: readonly string[] }): Promise<Process> {
      ran.push([...argv]);
      const { code, output = '' } = answer(argv);
      const bytes = Buffer.from(output as string);
      return {
        pid: 1,
        marker: { execId: 'x', session: null },
        output: (async function* () {
          if (bytes.length > 0) yield { stream: 'stdout' as const, bytes };
        })(),
        outputEnded: true,
        exit: Promise.resolve<Exit>({ kind: 'exited', code }),
        kill: async () => [],
        look: async () => [],
        release() {},
      };
    },
  } as unknown as Session;
  const pool = {
    async lease() {
      leases += 1;
      return {
        session,
        release() {
          leases -= 1;
        },
      };
    },
  } as unknown as Pool;
  const rescue = createRescue({
    pool,
    diagnose: async () => diagnosisOf(how.canRun ?? true),
    readConsole: async () => ({ text: 'login: ' }),
    store: {
      async add(one) {
        kept.push(one);
      },
      latest: async () => null,
    },
    redact: how.redact ?? maskText,
  });
  const run = async (): Promise<Map<string, Section>> => {
    const { rescue: made } = await rescue(workspace, { id: 'r', actor: 'a', signal: new AbortController().signal });
    return new Map(made.sections.map((section) => [section.name, section]));
  };
  return { run, ran, kept, openLeases: () => leases };
}

describe('a rescue', () => {
  it('has every section, the console first, and gives every place back', async () => {
    const { run, openLeases, kept } = play(() => ({ code: 0, output: 'fine\n' }));
    const sections = await run();
    expect([...sections.keys()]).toEqual(['console', ...SECTIONS.map(({ name }) => name)]);
    expect(sections.get('uptime')).toEqual({
      name: 'uptime',
      command: ['uptime'],
      exit_code: 0,
      output: 'fine\n',
      duration_ms: expect.any(Number),
    });
    expect(openLeases()).toBe(0);
    expect(kept).toHaveLength(1);
  });

  it('goes on to the fallback where a command is missing or fails', async () => {
    const { run } = play(([program]) => ({ code: program === 'tail' ? 0 : 127, output: `${program}\n` }));
    const sections = await run();
    expect(sections.get('errors')).toMatchObject({
      command: ['tail', '-n', '200', '/var/log/messages'],
      output: 'tail\n',
    });
    expect(sections.get('uptime')).toMatchObject({ output: null, error: 'none of its commands is there' });
  });

  it('keeps what a failing command said when no other says more', async () => {
    const { run } = play(([program]) => ({ code: 1, output: `${program} fails\n` }));
    expect((await run()).get('memory')).toMatchObject({ exit_code: 1, output: 'cat fails\n' });
  });

  it('takes the state of a unit that does not run for an answer', async () => {
    const { run, ran } = play(([program]) => ({ code: program === 'systemctl' ? 3 : 0, output: 'inactive\n' }));
    expect((await run()).get('sshd')).toMatchObject({ exit_code: 3, output: 'inactive\n' });
    expect(ran.filter((argv) => argv[2] === 'ssh')).toEqual([]);
  });

  it('masks before anything is kept', async () => {
    const { run, kept } = play(() => ({ code: 0, output: 'password=hunter2 AKIAIOSFODNN7EXAMPLE\n' }));
    await run();
    expect(JSON.stringify(kept)).not.toMatch(/hunter2|AKIAIOSFODNN7EXAMPLE/);
  });

  it('keeps nothing of a section that the redactor cannot take', async () => {
    const redact = (text: string): string => {
      if (text.includes('poison')) throw new Error(`cannot read ${text}`);
      return text;
    };
    const { run, kept } = play(([program]) => ({ code: 0, output: program === 'free' ? 'poison\n' : 'fine\n' }), {
      redact,
    });
    const sections = await run();
    expect(sections.get('memory')).toMatchObject({ output: null, error: 'not kept: it could not be redacted' });
    expect(sections.get('uptime')).toMatchObject({ output: 'fine\n' });
    expect(JSON.stringify(kept)).not.toContain('poison');
  });

  it('keeps head and tail of a long output, 64 KiB at most', async () => {
    const lines = Array.from({ length: 40_000 }, (_, index) => `line ${index}\n`).join('');
    const { run } = play(() => ({ code: 0, output: lines }));
    const section = (await run()).get('kernel');
    expect(section).toMatchObject({ truncated: true });
    expect(Buffer.byteLength(section?.output ?? '')).toBeLessThanOrEqual(64 * 1024);
    expect(section?.output).toMatch(/^line 0\n/);
    expect(section?.output).toMatch(/left out\]\nline \d+\n/);
    expect(section?.output).toMatch(/line 39999\n$/);
  });

  it('runs nothing where nobody can log in, and keeps what needs no login', async () => {
    const { run, ran } = play(() => ({ code: 0 }), { canRun: false });
    expect([...(await run()).keys()]).toEqual(['console']);
    expect(ran).toEqual([]);
  });

  it('only reads: no shell, no sudo, nothing that writes', () => {
    const programs = new Set(SECTIONS.flatMap(({ tries }) => tries.map(({ argv }) => argv[0])));
    for (const program of ['sh', 'bash', 'sudo', 'rm', 'tee', 'dd', 'reboot', 'kill'])
      expect(programs).not.toContain(program);
  });
});
