import { describe, expect, test } from 'vitest';
import { readTraceContext } from '../../src/http/trace-context.ts';

const TRACE_ID = '0af7651916cd43dd8448eb211c80319c';
const SPAN_ID = 'b7ad6b7169203331';
const TRACEPARENT = `00-${TRACE_ID}-${SPAN_ID}-01`;

describe('a traceparent', () => {
  test.each([
    [TRACEPARENT, TRACE_ID],
    [`cc-${TRACE_ID}-${SPAN_ID}-01-what-comes-later`, TRACE_ID],
    [`cc-${TRACE_ID}-${SPAN_ID}-01`, TRACE_ID],
    [`00-${TRACE_ID}-${SPAN_ID}-01-more`, undefined],
    [`cc-${TRACE_ID}-${SPAN_ID}-01.more`, undefined],
    [`ff-${TRACE_ID}-${SPAN_ID}-01`, undefined],
    [`00-${'0'.repeat(32)}-${SPAN_ID}-01`, undefined],
    [`00-${TRACE_ID}-${'0'.repeat(16)}-01`, undefined],
    [`00-${TRACE_ID.toUpperCase()}-${SPAN_ID}-01`, undefined],
    [`00-${TRACE_ID}-${SPAN_ID}`, undefined],
    [`00-${TRACE_ID}\u009b-${SPAN_ID}-01`, undefined],
    [`${TRACEPARENT}, ${TRACEPARENT}`, undefined],
    ['', undefined],
    [undefined, undefined],
  ])('%j has the trace id %j', (header, expected) => {
    expect(readTraceContext(header, undefined)?.traceId).toBe(expected);
  });

  test.each([
    ['00', 0],
    ['01', 1],
    ['03', 3],
  ])('with the flags %s is sampled as its lowest bit says', (flags, traceFlags) => {
    expect(readTraceContext(`00-${TRACE_ID}-${SPAN_ID}-${flags}`, undefined)).toEqual({
      traceId: TRACE_ID,
      spanId: SPAN_ID,
      traceFlags,
      isRemote: true,
    });
  });

  test('brings the valid members of its tracestate along', () => {
    const sent = readTraceContext(TRACEPARENT, 'congo=t61rcWkgMzE, no value, rojo=00f067aa0ba902b7');
    expect(sent?.traceState?.serialize()).toBe('congo=t61rcWkgMzE,rojo=00f067aa0ba902b7');
  });

  test('that is not valid leaves a tracestate alone', () => {
    expect(readTraceContext('nonsense', 'congo=t61rcWkgMzE')).toBeNull();
  });
});
