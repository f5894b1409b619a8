/**
 * One lab per folder: the programs of a lab are known by homes in its folder, and the end of one lab would end another's.
 *
 * The claim is a socket in Linux's abstract namespace, named after the folder: the kernel lets go of it with the process,
 * however that ends, and nothing is left on disk. Elsewhere there are no such sockets, and no claim.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { realpathSync } from 'node:fs';
import { createServer } from 'node:net';

/** `dataDir` exists. Rejects with one sentence when a living lab has it. The returned function lets it go. */
export async function claimFolder(dataDir: string): Promise<() => void> {
  if (process.platform !== 'linux') return () => undefined;
  const folder = createHash('sha256').update(realpathSync(dataDir)).digest('hex');
  const socket = createServer((connection) => connection.destroy());
  try {
    await once(socket.listen(`\0sallyport-lab-${folder}`), 'listening');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw cause;
    throw new Error(
      `the data folder ${dataDir} is in use by another running lab: stop it first, or set SALLYPORT_DATA_DIR to another folder`,
      { cause },
    );
  }
  return () => void socket.close();
}
