import { type Settings } from './types';

/** The values of empty settings in the backend; the configuration page shows them as placeholders. */
export const DEFAULTS = {
  keyspace: 'fleet_iot',
  consistency: 'LOCAL_ONE',
  queryTimeout: '10s',
  connectTimeout: '5s',
  maxConcurrency: 32,
  maxPartitions: 2000,
  maxRows: 100_000,
  maxRowsRead: 2_000_000,
  queryMegabytes: 192,
  latestCache: '1s',
  closedDayCache: '10m',
  cacheMegabytes: 64,
  staleAfter: '2m',
  offlineAfter: '15m',
  movingAboveKmh: 3,
  liveInterval: '2s',
  allowRaw: true,
} as const;

export const CONSISTENCIES = ['LOCAL_ONE', 'ONE', 'TWO', 'THREE', 'LOCAL_QUORUM', 'QUORUM', 'ALL'];

type Problems = Partial<Record<keyof Settings, string>>;

const UNIT_SECONDS: Record<string, number> = { ns: 1e-9, us: 1e-6, µs: 1e-6, ms: 1e-3, s: 1, m: 60, h: 3600 };

/** Parses a duration such as "10s" or "1m30s" to seconds, like the backend; undefined if it is invalid. */
export function parseDuration(text: string): number | undefined {
  if (text === '0') {
    return 0;
  }
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) {
    return undefined;
  }
  return [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)].reduce(
    (sum, [, number, unit]) => sum + Number(number) * UNIT_SECONDS[unit],
    0
  );
}

/** Obvious errors of settings, by setting. The backend makes the final check. */
export function settingsProblems(settings: Settings): Problems {
  const problems: Problems = { contactPoints: contactPointsProblem(settings.contactPoints) };

  for (const name of ['queryTimeout', 'connectTimeout', 'staleAfter', 'offlineAfter', 'liveInterval'] as const) {
    problems[name] = durationProblem(settings[name], false);
  }
  for (const name of ['latestCache', 'closedDayCache'] as const) {
    problems[name] = durationProblem(settings[name], true);
  }
  for (const name of [
    'maxConcurrency',
    'maxPartitions',
    'maxRows',
    'maxRowsRead',
    'queryMegabytes',
    'cacheMegabytes',
  ] as const) {
    const value = settings[name];
    if (value !== undefined && !(Number.isInteger(value) && value > 0)) {
      problems[name] = 'Enter a whole number above 0';
    }
  }
  if (settings.movingAboveKmh !== undefined && !(settings.movingAboveKmh >= 0)) {
    problems.movingAboveKmh = 'Enter a number, 0 or more';
  }

  const stale = parseDuration(settings.staleAfter || DEFAULTS.staleAfter);
  const offline = parseDuration(settings.offlineAfter || DEFAULTS.offlineAfter);
  if (!problems.offlineAfter && stale !== undefined && offline !== undefined && offline < stale) {
    problems.offlineAfter = 'Must be at least as long as Stale after';
  }
  return problems;
}

function contactPointsProblem(text = ''): string | undefined {
  const points = text
    .split(',')
    .map((point) => point.trim())
    .filter((point) => point !== '');
  if (points.length === 0) {
    return 'Enter at least one node of the cluster, as host or host:port';
  }
  const wrong = points.find((point) => !isHostWithPort(point));
  return wrong === undefined ? undefined : `"${wrong}" is not a host or host:port`;
}

function isHostWithPort(point: string): boolean {
  // A name or IPv4 address, or an IPv6 address, in brackets where a port follows.
  const match = /^(?:[^\s:/[\]]+|\[[0-9a-fA-F:.]+\])(?::(\d+))?$/.exec(point);
  if (!match) {
    return /^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*$/.test(point);
  }
  const port = match[1] === undefined ? 1 : Number(match[1]);
  return port >= 1 && port <= 65_535;
}

function durationProblem(text: string | undefined, zero: boolean): string | undefined {
  if (!text) {
    return undefined;
  }
  const seconds = parseDuration(text);
  if (seconds === undefined) {
    return `"${text}" is not a duration; write it like 500ms, 10s or 1m30s`;
  }
  return seconds > 0 || zero ? undefined : 'Must be longer than 0';
}
