/**
 * The JSON body of a request, read after the gates that need no body.
 *
 * Bytes are joined before they are decoded, and decoding is fatal: text decoded per chunk, or repaired, would run
 * another command than the caller sent. Messages name places, never contents: they end in audit rows.
 */
import { isUtf8 } from 'node:buffer';
import type { IncomingMessage } from 'node:http';
import type { Request } from 'express';
import { SallyportError } from '../errors.ts';
import { BODY_DRAIN_MAX_BYTES, BODY_DRAIN_MAX_MS, BODY_MAX_BYTES } from '../limits.ts';
import { jsonMistakeAt } from './json-mistake.ts';

export async function readJson(req: Request): Promise<unknown> {
  requireJson(req);
  const text = decodeUtf8(await readBytes(req, BODY_MAX_BYTES));
  return parseJson(text);
}

/** Reads and forgets what is left of a body, for a bounded time and size. Never rejects. */
export function discardRest(req: IncomingMessage): Promise<void> {
  if (req.complete || req.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    let left = BODY_DRAIN_MAX_BYTES;
    const onData = (chunk: Buffer) => {
      left -= chunk.length;
      if (left <= 0) done();
    };
    const done = () => {
      clearTimeout(timer);
      req.off('data', onData).off('end', done).off('close', done);
      req.pause();
      resolve();
    };
    const timer = setTimeout(done, BODY_DRAIN_MAX_MS);
    req.on('data', onData).on('end', done).on('close', done);
    req.resume();
  });
}

function requireJson(req: Request): void {
  const type = req.get('content-type') ?? '';
  const [media = '', ...parameters] = type.split(';').map((part) => part.trim().toLowerCase());
  const charset = parameters.find((parameter) => parameter.startsWith('charset='));
  const encoding = req.get('content-encoding') ?? 'identity';
  if (media !== 'application/json' || (charset !== undefined && !/^charset="?utf-?8"?$/.test(charset)))
    throw new SallyportError(
      'unsupported_media_type',
      `Content-Type must be application/json in UTF-8, got ${type === '' ? 'none' : JSON.stringify(type.slice(0, 100))}`,
    );
  if (encoding.toLowerCase() !== 'identity')
    throw new SallyportError('unsupported_media_type', 'Content-Encoding is not supported: send the body as it is');
}

function readBytes(req: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const tooLarge = () =>
    new SallyportError('too_large', `the body must be at most ${maxBytes} bytes; nothing was read beyond that`);
  if (Number(req.headers['content-length'] ?? 0) > maxBytes) return Promise.reject(tooLarge());
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const settle = (finish: () => void) => {
      req.off('data', onData).off('end', onEnd).off('close', onClose).off('error', onClose);
      finish();
    };
    const onData = (chunk: Buffer) => {
      size += chunk.length;
      chunks.push(chunk);
      if (size <= maxBytes) return;
      req.pause();
      settle(() => reject(tooLarge()));
    };
    const onEnd = () => settle(() => resolve(chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks)));
    const onClose = () => settle(() => reject(new SallyportError('invalid_request', 'the body broke off')));
    req.on('data', onData).on('end', onEnd).on('close', onClose).on('error', onClose);
    if (req.destroyed) onClose();
  });
}

function decodeUtf8(bytes: Buffer): string {
  if (!isUtf8(bytes))
    throw new SallyportError('invalid_request', `the body is not valid UTF-8 at byte ${badByteAt(bytes)}`);
  const text = bytes.toString('utf8');
  return text.startsWith('\ufeff') ? text.slice(1) : text;
}

/** Offset of the first byte that a lenient decoder replaces; a replacement character that was sent does not count. */
function badByteAt(bytes: Buffer): number {
  const repaired = bytes.toString('utf8');
  let offset = 0;
  for (let from = 0; ; ) {
    const at = repaired.indexOf('\ufffd', from);
    if (at < 0) return bytes.length;
    offset += Buffer.byteLength(repaired.slice(from, at));
    if (bytes.toString('latin1', offset, offset + 3) !== '\xef\xbf\xbd') return offset;
    offset += 3;
    from = at + 1;
  }
}

function parseJson(text: string): unknown {
  if (text.trim() === '') throw new SallyportError('invalid_request', 'the body must be a JSON object, got nothing');
  const value = tryParse(text);
  if (hasProtoKey(value)) throw new SallyportError('invalid_request', 'the key __proto__ is not accepted in a body');
  return value;
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The engine's own message quotes the body, which may hold a secret.
    const before = text.slice(0, jsonMistakeAt(text) ?? text.length);
    const line = before.split('\n').length;
    const column = before.length - before.lastIndexOf('\n');
    throw new SallyportError('invalid_request', `the body is not valid JSON at line ${line}, column ${column}`);
  }
}

/** `JSON.parse` makes `__proto__` an own key, harmless until somebody copies it by assignment. */
function hasProtoKey(root: unknown): boolean {
  const todo: unknown[] = [root];
  while (todo.length > 0) {
    const value = todo.pop();
    if (typeof value !== 'object' || value === null) continue;
    if (Object.hasOwn(value, '__proto__')) return true;
    for (const inner of Object.values(value)) if (typeof inner === 'object') todo.push(inner);
  }
  return false;
}
