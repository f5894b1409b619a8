/**
 * An HTTP client for load: one kept-alive connection, one request after the other, written once and sent again.
 *
 * Node's own client costs about as much per request as the gateway does, and would be what is measured with 100 callers on
 * two cores. It knows what the servers of the bench send: a length, or chunks with no CR LF CR LF in them.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

const LAST_CHUNK = Buffer.from('0\r\n\r\n');

export interface HttpTarget {
  /** http://127.0.0.1:port */
  url: string;
  path: string;
  token: string;
  body: object;
}

/** The bytes of a POST. */
export function requestBytes({ url, path, token, body }: HttpTarget): Buffer {
  const text = JSON.stringify(body);
  const lines = [
    `POST ${path} HTTP/1.1`,
    `Host: ${new URL(url).host}`,
    `Authorization: Bearer ${token}`,
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(text)}`,
  ];
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${text}`);
}

export class RawHttp {
  readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => undefined); // Whoever waits hears `close`.
  }

  static async open(url: string): Promise<RawHttp> {
    const { hostname, port } = new URL(url);
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    await once(socket, 'connect');
    return new RawHttp(socket);
  }

  /** The whole answer, headers and chunk lines too. */
  ask(request: Buffer): Promise<string> {
    return this.#exchange(request, (chunks) => {
      const text = Buffer.concat(chunks).toString('latin1');
      return isWhole(text) ? text : null;
    });
  }

  /** Reads and counts, keeps only the end of the answer. */
  async drain(request: Buffer): Promise<{ bytes: number; tail: string }> {
    let bytes = 0;
    let tail: Buffer = Buffer.alloc(0);
    return await this.#exchange(request, (chunks) => {
      const chunk = chunks.pop() ?? Buffer.alloc(0);
      bytes += chunk.length;
      tail = chunk.length >= 2048 ? chunk.subarray(-2048) : Buffer.concat([tail, chunk]).subarray(-2048);
      return tail.subarray(-LAST_CHUNK.length).equals(LAST_CHUNK) ? { bytes, tail: tail.toString('latin1') } : null;
    });
  }

  close(): void {
    this.socket.destroy();
  }

  /** `look` is shown what came, after every piece, until it has an answer. */
  #exchange<T>(request: Buffer, look: (chunks: Buffer[]) => T | null): Promise<T> {
    const { socket } = this;
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      const onData = (chunk: Buffer): void => {
        chunks.push(chunk);
        const answer = look(chunks);
        if (answer === null) return;
        stop();
        resolve(answer);
      };
      const onClose = (): void => {
        stop();
        reject(new Error('the server closed the connection before its answer was complete'));
      };
      const stop = (): void => {
        socket.off('data', onData);
        socket.off('close', onClose);
      };
      if (socket.destroyed) return onClose();
      socket.on('data', onData);
      socket.on('close', onClose);
      socket.write(request);
    });
  }
}

function isWhole(text: string): boolean {
  const end = text.indexOf('\r\n\r\n');
  if (end === -1) return false;
  const length = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, end))?.[1];
  return length === undefined ? text.endsWith('0\r\n\r\n') : text.length >= end + 4 + Number(length);
}

/** Throws unless the answer is 200 and the program ended with 0. */
export function requireSuccess(answer: string): void {
  if (answer.startsWith('HTTP/1.1 200') && /"exit_code":0[,}]/.test(answer)) return;
  throw new Error(`expected 200 and exit code 0, got ${answer.slice(0, 15)} … ${answer.slice(-600)}`);
}
