/** One folder for a whole test run: for what is made once and used by several files, such as the built program. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';

declare module 'vitest' {
  export interface ProvidedContext {
    runFolder: string;
  }
}

export default async function makeRunFolder(project: TestProject): Promise<() => Promise<void>> {
  const runFolder = await mkdtemp(join(tmpdir(), 'sallyport-run-'));
  project.provide('runFolder', runFolder);
  return () => rm(runFolder, { recursive: true });
}
