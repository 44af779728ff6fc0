import { completions, EXAMPLE, MACROS } from './cql';

const labels = (...args: Parameters<typeof completions>) => completions(...args).map(({ label }) => label);

it('completes macros and keywords before the schema is known', () => {
  expect(labels(undefined)).toEqual(expect.arrayContaining([...MACROS.map(({ name }) => name), 'SELECT', 'WHERE']));
});

it('completes tables with their keys, and each column once', () => {
  const ts = { name: 'ts', type: 'timestamp' };
  const suggestions = completions({
    keyspace: 'fleet_iot',
    tables: [
      { name: 'telemetry', partitionKey: ['device_id', 'day'], clusteringKey: ['ts'], columns: [ts] },
      {
        name: 'alerts',
        partitionKey: ['fleet_id'],
        clusteringKey: [],
        columns: [ts, { name: 'message', type: 'text' }],
      },
    ],
  });
  expect(suggestions).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ label: 'telemetry', detail: 'table, key (device_id, day), ts' }),
      expect.objectContaining({ label: 'alerts', detail: 'table, key (fleet_id)' }),
      expect.objectContaining({ label: 'ts', detail: 'timestamp', documentation: 'In telemetry, alerts' }),
      expect.objectContaining({ label: 'message', detail: 'text', documentation: 'In alerts' }),
    ])
  );
  expect(suggestions.filter(({ label }) => label === 'ts')).toHaveLength(1);
});

it('has an example that uses only macros of the backend', () => {
  const used = EXAMPLE.match(/\$__\w+/g);
  expect(used).toEqual(['$__days', '$__timeFilter']);
});
