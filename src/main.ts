#!/usr/bin/env node
/**
 * The program `sallyport`: hands client verbs to cli/, runs the server verbs itself. Nothing imports this file.
 *
 * Everything is loaded on use, so that `--version` and a remote exec do not pay for a server.
 */
import { writeSync } from 'node:fs';
import type { ServerVerb } from './cli/cli.ts';
import type { Output } from './cli/output.ts';

type Env = NodeJS.ProcessEnv;

const SERVER_VERBS: Readonly<Record<string, ServerVerb>> = {
  serve: { description: 'start the gateway (settings from the environment)', run: serve },
  demo: {
    description: 'start gateway, embedded database and lab on loopback; --once runs one exec and ends',
    run: demo,
  },
  migrate: { description: 'bring the database to this version', run: migrate },
  lab: { description: 'start the EC2 look-alike alone', run: lab },
  audit: { description: 'verify, export, prune the evidence (on the database itself)', run: audit },
};

async function serve(args: string[], output: Output): Promise<number> {
  if (!expectArgs(output, { verb: 'serve', args, known: [] })) return 2;
  const { config, log, flushLog } = await settings(process.env);
  const { startGateway } = await import('./serve.ts');
  const gateway = await startGateway(config, log);
  await output.write('stdout', `sallyport is listening on ${gateway.url}\n`);
  await untilStopped(output, (graceMs) => gateway.stop(graceMs));
  await flushLog(log);
  return 0;
}

async function demo(args: string[], output: Output): Promise<number> {
  if (!expectArgs(output, { verb: 'demo', args, known: ['--once'] })) return 2;
  const once = args.includes('--once');
  const { config, log } = await settings({ SALLYPORT_LOG_LEVEL: 'warn', ...process.env });
  const { execOnce, startDemo, welcome } = await import('./demo.ts');
  const running = await startDemo(config, { log, env: process.env });
  if (once) {
    try {
      return await execOnce(running.file, (line) => output.write('stdout', `${line}\n`));
    } finally {
      await running.stop(0);
    }
  }
  await output.write('stdout', welcome(running.file));
  await untilStopped(output, (graceMs) => running.stop(graceMs));
  return 0;
}

async function migrate(args: string[], output: Output): Promise<number> {
  if (!expectArgs(output, { verb: 'migrate', args, known: [] })) return 2;
  const { config, log } = await settings(process.env, { needsSigningKey: false });
  const { openDatabase } = await import('./db/database.ts');
  const { migrateDatabase } = await import('./db/migrate.ts');
  const url = config.migrateDatabaseUrl ?? config.databaseUrl;
  if (url === null) {
    const database = await openDatabase({
      url: null,
      migrateUrl: null,
      dataDir: config.dataDir,
      replica: 'migrate',
      log,
    });
    await database.close();
    await output.write('stdout', 'the embedded database is up to date\n');
    return 0;
  }
  const applied = await migrateDatabase({ url, log, servingUrl: config.databaseUrl });
  await output.write(
    'stdout',
    applied.length === 0 ? 'the database is up to date\n' : `applied ${applied.join(', ')}\n`,
  );
  return 0;
}

async function lab(args: string[], output: Output): Promise<number> {
  if (!expectArgs(output, { verb: 'lab', args, known: [] })) return 2;
  const { config, log } = await settings(process.env, { needsSigningKey: false });
  const { join } = await import('node:path');
  const { startLab } = await import('./lab/lab.ts');
  const running = await startLab({ dataDir: join(config.dataDir, 'lab'), log });
  await output.write(
    'stdout',
    `the lab is listening on ${running.url}; for a gateway beside it:

export AWS_REGION=${running.region} AWS_ACCESS_KEY_ID=${running.accessKeyId} AWS_SECRET_ACCESS_KEY=${running.secretAccessKey}
export AWS_ENDPOINT_URL_EC2=${running.url} AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT=${running.url} SALLYPORT_LAB_TUNNEL_URL=${running.tunnelUrl}

${running.instances.map(({ id, osUser }) => `${id}  ${osUser}`).join('\n')}
`,
  );
  await untilStopped(output, () => running.stop());
  return 0;
}

async function audit(args: string[], output: Output): Promise<number> {
  const { runAudit } = await import('./evidence/evidence.ts');
  const { env } = process;
  return await runAudit(args, { env, stdin: () => process.stdin, output });
}

async function settings(env: Env, needs: { needsSigningKey?: boolean } = {}) {
  const { readConfig } = await import('./config/config.ts');
  const { createLog, flushLog } = await import('./log.ts');
  const config = readConfig(env, needs);
  const log = createLog(config.logLevel);
  for (const warning of config.warnings) log.warn({}, warning);
  return { config, log, flushLog };
}

/**
 * The first signal drains, the second one stops at once. Resolves when everything is down. A reader who went away before
 * he was told the address ends it like a signal: nobody knows what runs here.
 */
async function untilStopped(output: Output, stop: (graceMs?: number) => Promise<void>): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let asked = 0;
    const end = (): void => {
      asked += 1;
      stop(asked === 1 ? undefined : 0).then(resolve, reject);
    };
    process.on('SIGINT', end);
    process.on('SIGTERM', end);
    if (output.broken.aborted) end();
    else output.broken.addEventListener('abort', end);
  });
}

function expectArgs(
  output: Output,
  { verb, args, known }: { verb: string; args: readonly string[]; known: readonly string[] },
): boolean {
  const unknown = args.find((arg) => !known.includes(arg));
  if (unknown === undefined) return true;
  const expected = known.length === 0 ? 'no arguments; settings come from the environment' : known.join(' ');
  void output.write('stderr', `sallyport ${verb} takes ${expected}\n`);
  return false;
}

/** Written at once: Node's streams take longer to make than all the rest. A reader who has gone is no failure. */
async function printVersion(): Promise<number> {
  const { readVersion } = await import('./cli/version.ts');
  try {
    writeSync(1, `${readVersion()}\n`);
    return 0;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EPIPE') return 141;
    throw error;
  }
}

async function main(argv: string[]): Promise<number> {
  if (argv.length === 1 && (argv[0] === '--version' || argv[0] === '-V')) return await printVersion();
  const { runCli } = await import('./cli/cli.ts');
  const { processIo } = await import('./cli/io.ts');
  return await runCli(argv, processIo(), SERVER_VERBS);
}

/** What the machine refuses to a server verb, by system call, and the settings that led there. */
const SETTINGS_BEHIND: Readonly<Record<string, string>> = {
  listen: 'SALLYPORT_HOST and SALLYPORT_PORT',
  mkdir: 'SALLYPORT_DATA_DIR',
};

function sentenceOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const settings = 'syscall' in error ? SETTINGS_BEHIND[String(error.syscall)] : undefined;
  return settings === undefined ? error.message : `${settings}: ${error.message}`;
}

async function fail(error: unknown): Promise<void> {
  const { neutraliseLines } = await import('./cli/output.ts');
  process.stderr.write(`sallyport: ${neutraliseLines(sentenceOf(error))}\n`);
  process.exitCode = 1;
}

// Verbs have flushed what they wrote; a reader of ours that has stopped reading must not keep the process alive.
// No top-level await: the build makes this file CommonJS, which starts in less time.
main(process.argv.slice(2)).then((exitCode) => process.exit(exitCode), fail);
