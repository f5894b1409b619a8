import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/bench/**'],
    // One PostgreSQL cluster and one folder for the whole run.
    globalSetup: ['test/support/global-database.ts', 'test/support/global-folder.ts'],
    // Processes, not threads: tests start programs, set environment variables and count open handles.
    pool: 'forks',
    // Tests start real servers and programs of their own and wait for them more than they compute: one worker more than
    // cores takes a third less time; with many, deadlines become a matter of luck.
    maxWorkers: 3,
    testTimeout: 20_000,
    hookTimeout: 60_000,
    allowOnly: false,
    passWithNoTests: false,
  },
});
