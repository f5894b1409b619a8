/** Users of this machine for as long as a lab runs, to log in to a real sshd with a login shell of choice. Root only. */
import { execFile } from 'node:child_process';
import { chown, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

export interface SystemUser {
  name: string;
  /** Absolute path. */
  shell: string;
}

/** In the comment field of the entry: one that carries it is ours to remove. */
const MARK = 'sallyport-lab';
const run = promisify(execFile);

/** Resolves to what removes them again. A user of that name that is not ours is an error. */
export async function addSystemUsers(users: readonly SystemUser[]): Promise<() => Promise<void>> {
  if (users.length > 0 && process.getuid?.() !== 0) throw new Error('the lab can add users only as root');
  const added: Added[] = [];
  const removeAll = async () => {
    for (const user of added.splice(0)) await remove(user);
  };
  try {
    for (const user of users) added.push(await add(user));
  } catch (error) {
    await removeAll();
    throw error;
  }
  return removeAll;
}

interface Added {
  name: string;
  home: string;
}

async function add({ name, shell }: SystemUser): Promise<Added> {
  const known = await findEntry(name);
  if (known !== null) {
    if (known.comment !== MARK) throw new Error(`the user ${name} is already on this machine`);
    // Left by a lab that was killed.
    await remove({ name, home: known.home });
  }
  const home = await mkdtemp(join(tmpdir(), 'lab-home-'));
  // `*`: no password, and not locked; sshd refuses locked users.
  await run('useradd', ['-M', '-N', '-s', shell, '-d', home, '-c', MARK, '-p', '*', name]);
  const entry = await findEntry(name);
  if (entry === null) throw new Error(`useradd made no entry for ${name}`);
  await chown(home, entry.uid, entry.gid);
  return { name, home };
}

async function remove({ name, home }: Added): Promise<void> {
  // Not -r: it would also remove a mail spool that is not ours.
  await run('userdel', ['-f', name]);
  await rm(home, { recursive: true, force: true });
}

async function findEntry(name: string): Promise<{ uid: number; gid: number; comment: string; home: string } | null> {
  const passwd = await readFile('/etc/passwd', 'utf8');
  const row = passwd.split('\n').find((line) => line.startsWith(`${name}:`));
  if (row === undefined) return null;
  const [, , uid, gid, comment = '', home = ''] = row.split(':');
  return { uid: Number(uid), gid: Number(gid), comment, home };
}
