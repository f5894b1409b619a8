import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/bench/**'],
    // One PostgreSQL cluster and one folder for the whole run.
    globalSetup: ['test/support/global-database.ts', 'test/support/global-folder.ts'],
    // Processes, not threads: tests start programs, set environment variables and count open handles.
    pool: 'forks',
    // Tests start real servers and programs of their own; more workers make deadlines a matter of luck.
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 60_000,
    allowOnly: false,
    passWithNoTests: false,
  },
});
