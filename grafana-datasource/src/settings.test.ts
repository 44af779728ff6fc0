import { DEFAULTS, parseDuration, settingsProblems } from './settings';
import { type Settings } from './types';

/** The settings of which something is said. */
function wrong(settings: Settings): string[] {
  const problems = settingsProblems({ contactPoints: '127.0.0.1', ...settings });
  return Object.entries(problems).flatMap(([name, problem]) => (problem === undefined ? [] : name));
}

describe('durations', () => {
  it.each<[string, number | undefined]>([
    ['10s', 10],
    ['1m30s', 90],
    ['1.5h', 5400],
    ['500ms', 0.5],
    ['0', 0],
    ['0s', 0],
    ['10', undefined],
    ['s', undefined],
    ['10 s', undefined],
    ['-1s', undefined],
    ['1d', undefined],
    ['', undefined],
  ])('%s', (text, seconds) => expect(parseDuration(text)).toBe(seconds));
});

describe('settings', () => {
  it('are right by default', () => {
    expect(wrong({})).toEqual([]);
    expect(wrong({ ...DEFAULTS })).toEqual([]);
  });

  it.each(['10.0.0.1', 'node-1.example.org:9042, node-2', '[2001:db8::1]:9042', '2001:db8::1', ' a , '])(
    'take the contact points %s',
    (contactPoints) => expect(wrong({ contactPoints })).toEqual([])
  );

  it.each(['', ' , ', 'a b', 'http://a', 'a:0', 'a:70000', 'a:port'])(
    'refuse the contact points "%s"',
    (contactPoints) => expect(wrong({ contactPoints })).toEqual(['contactPoints'])
  );

  it('may turn caches off, but no deadline', () => {
    expect(wrong({ latestCache: '0s', closedDayCache: '0s' })).toEqual([]);
    expect(wrong({ queryTimeout: '0s', liveInterval: '0s' })).toEqual(['queryTimeout', 'liveInterval']);
  });

  it('want numbers above 0, and a speed of 0 or more', () => {
    expect(wrong({ maxRows: 0, maxConcurrency: 1.5, maxPartitions: -1, maxRowsRead: 0, cacheMegabytes: NaN })).toEqual([
      'maxConcurrency',
      'maxPartitions',
      'maxRows',
      'maxRowsRead',
      'cacheMegabytes',
    ]);
    expect(wrong({ movingAboveKmh: 0 })).toEqual([]);
    expect(wrong({ movingAboveKmh: -1 })).toEqual(['movingAboveKmh']);
  });

  it('want vehicles to be stale before they are offline', () => {
    expect(wrong({ staleAfter: '20m' })).toEqual(['offlineAfter']);
    expect(wrong({ staleAfter: '20m', offlineAfter: '20m' })).toEqual([]);
  });
});
