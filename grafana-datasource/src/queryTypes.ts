import { type FleetQuery, type Format, type PanelQueryType, type QueryType } from './types';

interface Choice<T extends string> {
  value: T;
  label: string;
  description: string;
}

interface QueryTypeChoice extends Choice<PanelQueryType> {
  /** The first is the default. */
  formats: Format[];
  /** The parts of the query that this type uses, in addition to its type and format. */
  reads: Array<keyof FleetQuery>;
}

export const QUERY_TYPES: QueryTypeChoice[] = [
  {
    value: 'latest',
    label: 'Latest positions',
    description: 'The latest position and state of each vehicle, for maps, tables and alert rules',
    formats: ['table', 'numeric'],
    reads: [
      'fleets',
      'devices',
      'states',
      'zones',
      'minSpeedKmh',
      'maxSpeedKmh',
      'minBatteryPct',
      'maxBatteryPct',
      'fields',
      'limit',
      'live',
    ],
  },
  {
    value: 'track',
    label: 'Track',
    description: 'The history of named vehicles over the time range, for charts and routes',
    formats: ['time_series', 'table'],
    reads: ['devices', 'fields', 'limit'],
  },
  {
    value: 'analytics',
    label: 'Hourly statistics',
    description: 'Distance, speed, alerts and active vehicles of a fleet per hour',
    formats: ['time_series', 'table'],
    reads: ['fleets', 'fields', 'limit'],
  },
  {
    value: 'alerts',
    label: 'Alerts',
    description: 'The alerts in the time range, as a table, logs, counts over time or annotations',
    formats: ['table', 'logs', 'time_series', 'numeric'],
    reads: ['fleets', 'devices', 'severities', 'alertTypes', 'resolved', 'limit'],
  },
  {
    value: 'devices',
    label: 'Vehicles',
    description: 'The registered vehicles: model, activation and status',
    formats: ['table', 'numeric'],
    reads: ['fleets', 'devices', 'limit'],
  },
  {
    value: 'fleets',
    label: 'Fleets',
    description: 'The fleets, with the number of their vehicles in each state',
    formats: ['table', 'numeric'],
    reads: ['fleets', 'limit'],
  },
  {
    value: 'geofences',
    label: 'Geofences',
    description: 'The geofences of the fleets, with their limits',
    formats: ['table', 'numeric'],
    reads: ['fleets', 'limit'],
  },
  {
    value: 'raw',
    label: 'Raw CQL',
    description: 'A SELECT that you write, with macros for the time range',
    formats: ['table', 'time_series', 'logs'],
    reads: ['cql', 'limit'],
  },
];

const FORMAT_LABELS: Record<Format, string> = {
  table: 'Table',
  time_series: 'Time series',
  numeric: 'Numbers',
  logs: 'Logs',
  annotations: 'Annotations',
};

export function queryTypeOf(query: FleetQuery): QueryType {
  return query.queryType ?? 'latest';
}

/** The format of a query: its own, or the default of its type. */
export function formatOf(query: FleetQuery): Format {
  return query.format ?? choiceOf(query)?.formats[0] ?? 'table';
}

/** The formats to choose from, including the current one even if the type does not offer it. */
export function formatChoices(query: FleetQuery): Array<{ value: Format; label: string }> {
  const formats = choiceOf(query)?.formats ?? [];
  const current = formatOf(query);
  return (formats.includes(current) ? formats : [...formats, current]).map((value) => ({
    value,
    label: FORMAT_LABELS[value],
  }));
}

/** Changes the type of a query. It keeps the parts that the new type uses. */
export function withQueryType(query: FleetQuery, queryType: PanelQueryType): FleetQuery {
  const { refId, hide, key, datasource } = query;
  const choice = QUERY_TYPES.find(({ value }) => value === queryType);
  const kept: Partial<FleetQuery> = {};
  for (const name of choice?.reads ?? []) {
    // The fields of types differ, and live needs the table format.
    if (name !== 'fields' && name !== 'live' && query[name] !== undefined) {
      Object.assign(kept, { [name]: query[name] });
    }
  }
  return {
    refId,
    ...(hide !== undefined && { hide }),
    ...(key !== undefined && { key }),
    ...(datasource !== undefined && { datasource }),
    queryType,
    format: choice?.formats[0],
    ...kept,
  };
}

/** One line that identifies a query in the history of Explore. */
export function describeQuery(query: FleetQuery): string {
  if (query.queryType === 'raw') {
    return query.cql?.trim() ?? '';
  }
  const parts = [choiceOf(query)?.label ?? 'Variable'];
  const named: Array<[string, string[] | undefined]> = [
    ['fleets', query.fleets],
    ['vehicles', query.devices],
    ['states', query.states],
    ['geofences', query.zones],
    ['severities', query.severities],
    ['types', query.alertTypes],
  ];
  for (const [name, values] of named) {
    if (values?.length) {
      parts.push(`${name} ${values.join(', ')}`);
    }
  }
  return parts.join('; ');
}

function choiceOf(query: FleetQuery): QueryTypeChoice | undefined {
  return QUERY_TYPES.find(({ value }) => value === queryTypeOf(query));
}
