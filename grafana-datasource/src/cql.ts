import { type CodeEditorSuggestionItem, CodeEditorSuggestionItemKind } from '@grafana/ui';

import { type Schema } from './types';

export const MACROS: Array<{ name: string; meaning: string }> = [
  { name: '$__days', meaning: 'the UTC days of the time range, for day IN ($__days)' },
  { name: '$__timeFilter(ts)', meaning: 'the time range, as conditions on the column' },
  { name: '$__timeFrom', meaning: 'the start of the time range' },
  { name: '$__timeTo', meaning: 'the end of the time range' },
  { name: '$__interval', meaning: 'the interval of the panel, as a CQL duration' },
];

/** An example that names the whole partition key, which every statement must do. */
export const EXAMPLE = `SELECT ts, speed_kmh, battery_pct
FROM telemetry_by_device_day
WHERE device_id = 'vehicle-0001' AND day IN ($__days) AND $__timeFilter(ts)`;

const KEYWORDS = [
  'ALLOW FILTERING',
  'AND',
  'AS',
  'ASC',
  'BY',
  'CONTAINS',
  'COUNT',
  'DESC',
  'DISTINCT',
  'FROM',
  'GROUP BY',
  'IN',
  'JSON',
  'LIMIT',
  'ORDER BY',
  'PER PARTITION LIMIT',
  'SELECT',
  'TOKEN',
  'TTL',
  'WHERE',
  'WRITETIME',
];

/** The completions of the raw CQL editor: macros, tables, columns and keywords. */
export function completions(schema: Schema | undefined): CodeEditorSuggestionItem[] {
  const columns = new Map<string, { type: string; tables: string[] }>();
  for (const table of schema?.tables ?? []) {
    for (const { name, type } of table.columns) {
      const column = columns.get(name) ?? { type, tables: [] };
      column.tables.push(table.name);
      columns.set(name, column);
    }
  }
  return [
    ...MACROS.map(({ name, meaning }) => ({
      label: name,
      kind: CodeEditorSuggestionItemKind.Constant,
      detail: meaning,
    })),
    ...(schema?.tables ?? []).map(({ name, partitionKey, clusteringKey }) => ({
      label: name,
      kind: CodeEditorSuggestionItemKind.Property,
      detail: `table, key ${[`(${partitionKey.join(', ')})`, ...clusteringKey].join(', ')}`,
    })),
    ...[...columns].map(([name, { type, tables }]) => ({
      label: name,
      kind: CodeEditorSuggestionItemKind.Field,
      detail: type,
      documentation: `In ${tables.join(', ')}`,
    })),
    ...KEYWORDS.map((label) => ({ label, kind: CodeEditorSuggestionItemKind.Text })),
  ];
}
