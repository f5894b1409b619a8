/**
 * Bytes of text → the inside of a JSON string, byte for byte what JSON.stringify makes of them as latin1.
 *
 * Not its job: UTF-8. JSON escapes only ASCII, so bytes from 0x80 on pass as they are. The escapes themselves are asked of
 * JSON.stringify. Written as a WebAssembly function of some 60 instructions because nothing that Node has looks at 16 bytes
 * at once: 0.55 ms/MiB of a log, where JSON.stringify takes 1.8. It is assembled here, so that what runs can be read.
 *
 * The result is a string, though bytes in memory that is used again would save another 0.2 ms/MiB: without garbage of ours
 * the collector of Node 20 does not clear away the buffers that come from the sockets until it collects everything, at a
 * third of the throughput.
 */

/** Longer texts are not for this. */
export const ESCAPE_MAX_BYTES = 64 * 1024;

export interface Escaper {
  /** `head` + `bytes` escaped + `tail`, one character a byte. `head` and `tail`: ASCII, short. */
  wrap(bytes: Buffer, head: string, tail: string): string;
}

/** What is used of the global of that name, which Node has and its types do not. */
interface WebAssemblyApi {
  validate(code: Uint8Array): boolean;
  Module: new (code: Uint8Array) => object;
  Instance: new (module: object) => { exports: Exports };
}

interface Exports {
  memory: { buffer: ArrayBuffer };
  /** Returns the end of what was written. */
  escapeJson(from: number, to: number, output: number): number;
}

const PAGE_BYTES = 64 * 1024;
/** Eight bytes for each value of a byte: its escape, at most six, and at the end the length of it. */
const TABLE_BYTES = 256 * 8;
/** The function reads and writes up to so much behind the end. */
const BEYOND_BYTES = 16;
const INPUT_AT = TABLE_BYTES;
const HEAD_AT = INPUT_AT + ESCAPE_MAX_BYTES + BEYOND_BYTES;
const HEAD_MAX_BYTES = 240;
const OUTPUT_AT = HEAD_AT + HEAD_MAX_BYTES;
const PAGES = Math.ceil((OUTPUT_AT + 6 * ESCAPE_MAX_BYTES + BEYOND_BYTES + HEAD_MAX_BYTES) / PAGE_BYTES);

/** Null where the processor or a setting of Node does not allow it. */
export function createEscaper(): Escaper | null {
  const code = assemble();
  const { WebAssembly: api } = globalThis as { WebAssembly?: WebAssemblyApi };
  if (api === undefined || !api.validate(code)) return null;
  const { memory, escapeJson } = new api.Instance(new api.Module(code)).exports;
  const bytesOf = Buffer.from(memory.buffer);
  for (let byte = 0; byte < 256; byte += 1) {
    const escaped = JSON.stringify(String.fromCharCode(byte)).slice(1, -1);
    bytesOf.write(escaped, byte * 8, 'latin1');
    bytesOf[byte * 8 + 7] = escaped.length;
  }
  return {
    wrap(bytes, head, tail) {
      if (bytes.length > ESCAPE_MAX_BYTES || head.length > HEAD_MAX_BYTES || tail.length > HEAD_MAX_BYTES)
        throw new Error(`bug: ${bytes.length} bytes are too many to be escaped at once`);
      bytes.copy(bytesOf, INPUT_AT);
      const from = OUTPUT_AT - head.length;
      bytesOf.write(head, from, 'latin1');
      const end = escapeJson(INPUT_AT, INPUT_AT + bytes.length, OUTPUT_AT);
      const to = end + bytesOf.write(tail, end, 'latin1');
      return bytesOf.toString('latin1', from, to);
    },
  };
}

/** WebAssembly core specification, 5.4: the instructions that are used, those of 128 bits with their prefix. */
const OP = {
  block: [0x02, 0x40],
  loop: [0x03, 0x40],
  end: [0x0b],
  br: (label: number) => [0x0c, label],
  br_if: (label: number) => [0x0d, label],
  get: (local: number) => [0x20, local],
  set: (local: number) => [0x21, local],
  tee: (local: number) => [0x22, local],
  i32_load8_u: (offset: number) => [0x2d, 0, offset],
  i64_load: [0x29, 0, 0],
  i64_store: [0x37, 0, 0],
  i32_const: (value: number) => [0x41, ...signedLeb(value)],
  i32_eq: [0x46],
  i32_ge_u: [0x4f],
  i32_ctz: [0x68],
  i32_add: [0x6a],
  i32_sub: [0x6b],
  i32_or: [0x72],
  i32_shl: [0x74],
  v128_load: [0xfd, 0x00, 0, 0],
  v128_store: [0xfd, 0x0b, 0, 0],
  /** Sixteen times the same byte. */
  v128_const: (byte: number) => [0xfd, 0x0c, ...Array<number>(16).fill(byte)],
  i8x16_eq: [0xfd, 0x23],
  i8x16_lt_u: [0xfd, 0x26],
  v128_or: [0xfd, 0x50],
  i8x16_bitmask: [0xfd, 0x64],
} as const;
const I32 = 0x7f;
const V128 = 0x7b;

/**
 * Copies 16 bytes, looks for the first among them that must be escaped, goes on behind it. What was copied too much is
 * written over by what comes next, and behind the end taken back.
 */
function escapeCode(): number[] {
  const [at, to, out, sixteen, count] = [0, 1, 2, 3, 4];
  const [next, done] = [0, 1];
  return [
    ...[OP.block, OP.loop],
    ...[OP.get(at), OP.get(to), OP.i32_ge_u, OP.br_if(done)],
    ...[OP.get(out), OP.get(at), OP.v128_load, OP.tee(sixteen), OP.v128_store],
    // Control characters, the quote and the backslash; bit 16 stands for "none".
    ...[OP.get(sixteen), OP.v128_const(0x20), OP.i8x16_lt_u],
    ...[OP.get(sixteen), OP.v128_const(0x22), OP.i8x16_eq, OP.v128_or],
    ...[OP.get(sixteen), OP.v128_const(0x5c), OP.i8x16_eq, OP.v128_or],
    ...[OP.i8x16_bitmask, OP.i32_const(1 << 16), OP.i32_or, OP.i32_ctz, OP.tee(count)],
    ...[OP.get(at), OP.i32_add, OP.set(at)],
    ...[OP.get(out), OP.get(count), OP.i32_add, OP.set(out)],
    ...[OP.get(count), OP.i32_const(16), OP.i32_eq, OP.br_if(next)],
    ...[OP.get(at), OP.get(to), OP.i32_ge_u, OP.br_if(done)],
    // From here on `count` is the place of the escape in the table.
    ...[OP.get(out), OP.get(at), OP.i32_load8_u(0), OP.i32_const(3), OP.i32_shl, OP.tee(count)],
    ...[OP.i64_load, OP.i64_store],
    ...[OP.get(out), OP.get(count), OP.i32_load8_u(7), OP.i32_add, OP.set(out)],
    ...[OP.get(at), OP.i32_const(1), OP.i32_add, OP.set(at)],
    ...[OP.br(next), OP.end, OP.end],
    ...[OP.get(out), OP.get(at), OP.get(to), OP.i32_sub, OP.i32_sub, OP.end],
  ].flat();
}

/** The module: one function, `escapeJson`, and the memory it works in. */
function assemble(): Uint8Array {
  const locals = vector([
    [1, V128],
    [1, I32],
  ]);
  const code = [...locals, ...escapeCode()];
  const type = [0x60, ...vector([[I32], [I32], [I32]]), ...vector([[I32]])];
  const [TYPES, FUNCTIONS, MEMORIES, EXPORTS, CODE] = [1, 3, 5, 7, 10];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(TYPES, vector([type])),
    ...section(FUNCTIONS, vector([[0]])),
    ...section(MEMORIES, vector([[0, ...leb(PAGES)]])),
    ...section(
      EXPORTS,
      vector([
        [...text('memory'), 2, 0],
        [...text('escapeJson'), 0, 0],
      ]),
    ),
    ...section(CODE, vector([[...leb(code.length), ...code]])),
  ]);
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...leb(content.length), ...content];
}

function vector(items: readonly (readonly number[])[]): number[] {
  return [...leb(items.length), ...items.flat()];
}

function text(name: string): number[] {
  return [...leb(name.length), ...Buffer.from(name)];
}

/** Seven bits a byte, the low ones first. */
function leb(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...leb(value >>> 7)];
}

/** The same for a number that is not negative, with room for the sign. */
function signedLeb(value: number): number[] {
  return value < 64 ? [value] : [(value & 127) | 128, ...signedLeb(value >>> 7)];
}
