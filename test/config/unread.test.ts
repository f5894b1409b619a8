import { describe, expect, test } from 'vitest';
import { readConfig } from '../../src/config/config.ts';

describe('a variable of ours that nobody reads', () => {
  test('is a warning with the nearest name', () => {
    expect(readConfig({ SALLYPORT_PROT: '80', SALLYPORT_TLS_CRT: 'x' }).warnings).toEqual([
      'SALLYPORT_PROT has no effect: this version has no such setting, did you mean SALLYPORT_PORT?',
      'SALLYPORT_TLS_CRT has no effect: this version has no such setting, did you mean SALLYPORT_TLS_CERT?',
    ]);
  });

  test('without a near name gets no guess', () => {
    expect(readConfig({ SALLYPORT_COLOUR_OF_THE_SKY: 'blue' }).warnings).toEqual([
      'SALLYPORT_COLOUR_OF_THE_SKY has no effect: this version has no such setting.',
    ]);
  });

  test('is none of those of the command line', () => {
    expect(readConfig({ SALLYPORT_URL: 'http://127.0.0.1:1', SALLYPORT_TOKEN: 'x' }).warnings).toEqual([]);
  });
});
