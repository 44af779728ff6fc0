import { DEFAULTS, parseDuration, settingsProblems } from './settings';
import { type Settings } from './types';

/** The settings that have a problem. */
function problems(settings: Settings): string[] {
  const found = settingsProblems({ contactPoints: '127.0.0.1', ...settings });
  return Object.entries(found).flatMap(([name, problem]) => (problem === undefined ? [] : name));
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
  it('are valid by default', () => {
    expect(problems({})).toEqual([]);
    expect(problems({ ...DEFAULTS })).toEqual([]);
  });

  it.each(['10.0.0.1', 'node-1.example.org:9042, node-2', '[2001:db8::1]:9042', '2001:db8::1', ' a , '])(
    'accept the contact points %s',
    (contactPoints) => expect(problems({ contactPoints })).toEqual([])
  );

  it.each(['', ' , ', 'a b', 'http://a', 'a:0', 'a:70000', 'a:port'])(
    'reject the contact points "%s"',
    (contactPoints) => expect(problems({ contactPoints })).toEqual(['contactPoints'])
  );

  it('may turn off caches, but not deadlines', () => {
    expect(problems({ latestCache: '0s', closedDayCache: '0s' })).toEqual([]);
    expect(problems({ queryTimeout: '0s', liveInterval: '0s' })).toEqual(['queryTimeout', 'liveInterval']);
  });

  it('require numbers above 0, and a speed of 0 or more', () => {
    expect(
      problems({
        maxRows: 0,
        maxConcurrency: 1.5,
        maxPartitions: -1,
        maxRowsRead: 0,
        queryMegabytes: 0,
        cacheMegabytes: NaN,
      })
    ).toEqual(['maxConcurrency', 'maxPartitions', 'maxRows', 'maxRowsRead', 'queryMegabytes', 'cacheMegabytes']);
    expect(problems({ movingAboveKmh: 0 })).toEqual([]);
    expect(problems({ movingAboveKmh: -1 })).toEqual(['movingAboveKmh']);
  });

  it('require offline to be at least as long as stale', () => {
    expect(problems({ staleAfter: '20m' })).toEqual(['offlineAfter']);
    expect(problems({ staleAfter: '20m', offlineAfter: '20m' })).toEqual([]);
  });
});
