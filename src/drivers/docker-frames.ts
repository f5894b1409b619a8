/**
 * The output of an exec as the Docker Engine frames it: 8 bytes of header (stream, three zeros, length), then the bytes.
 *
 * Source: Docker Engine API, "Attach to a container", stream format. Payload passes as it comes, whole frames are never
 * held; only a header may be waited for.
 */
const HEADER_BYTES = 8;
const STREAMS = { 1: 'stdout', 2: 'stderr' } as const;

export type EngineStream = (typeof STREAMS)[keyof typeof STREAMS];

/** The bytes are no frames: an engine that speaks otherwise, or says that it failed (stream 3). */
export class FrameError extends Error {}

export interface FrameReader {
  /** Tells each piece of output in order. Throws FrameError, after which nothing more may be pushed. */
  push(bytes: Buffer, output: (stream: EngineStream, bytes: Buffer) => void): void;
}

export function createFrameReader(): FrameReader {
  let header = Buffer.alloc(0);
  let stream: EngineStream = 'stdout';
  let leftBytes = 0;

  return {
    push(bytes, output) {
      let rest = bytes;
      while (rest.length > 0) {
        if (leftBytes > 0) {
          const piece = rest.subarray(0, leftBytes);
          leftBytes -= piece.length;
          rest = rest.subarray(piece.length);
          output(stream, piece);
          continue;
        }
        const missing = HEADER_BYTES - header.length;
        header = Buffer.concat([header, rest.subarray(0, missing)]);
        rest = rest.subarray(missing);
        if (header.length < HEADER_BYTES) return;
        stream = streamOf(header);
        leftBytes = header.readUInt32BE(4);
        header = Buffer.alloc(0);
      }
    },
  };
}

function streamOf(header: Buffer): EngineStream {
  const number = header.readUInt8(0);
  if ((number === 1 || number === 2) && header.readUIntBE(1, 3) === 0) return STREAMS[number];
  throw new FrameError(`the engine sent a frame of no output stream (header ${header.toString('hex')})`);
}
