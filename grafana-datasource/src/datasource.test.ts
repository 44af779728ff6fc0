import { CoreApp, type DataQueryRequest, type ScopedVars, StreamingFrameAction } from '@grafana/data';
import { DataSourceWithBackend, getTemplateSrv } from '@grafana/runtime';
import { firstValueFrom, of } from 'rxjs';

import { fleetDataSource } from './testing/datasource';
import { templateService } from './testing/templates';
import { type FleetQuery } from './types';

jest.mock('@grafana/runtime', () => ({
  ...jest.requireActual('@grafana/runtime'),
  getTemplateSrv: jest.fn(),
}));

function withVariables(...variables: Parameters<typeof templateService>) {
  jest.mocked(getTemplateSrv).mockReturnValue(templateService(...variables));
}

function applied(query: Partial<FleetQuery>, scopedVars: ScopedVars = {}) {
  return fleetDataSource().datasource.applyTemplateVariables({ refId: 'A', ...query }, scopedVars);
}

beforeEach(() => withVariables());

afterEach(() => jest.restoreAllMocks());

describe('template variables in lists', () => {
  it('inserts a single value', () => {
    withVariables({ name: 'fleet', value: 'fleet-001' });
    expect(applied({ fleets: ['$fleet'] }).fleets).toEqual(['fleet-001']);
    expect(applied({ fleets: ['${fleet}'] }).fleets).toEqual(['fleet-001']);
  });

  it('makes an entry of each value, beside those that are written out, and each once', () => {
    withVariables({ name: 'fleet', value: ['fleet-001', 'fleet-002'], multi: true });
    expect(applied({ fleets: ['fleet-002', '$fleet', 'fleet-009'] }).fleets).toEqual([
      'fleet-002',
      'fleet-001',
      'fleet-009',
    ]);
  });

  it('keeps a value with commas or braces whole', () => {
    withVariables({ name: 'zone', value: ['yard, north', '{b}'], multi: true });
    expect(applied({ zones: ['$zone'] }).zones).toEqual(['yard, north', '{b}']);
  });

  it('expands variables within a longer text', () => {
    withVariables(
      { name: 'n', value: ['1', '2'], multi: true },
      { name: 'kind', value: ['truck', 'van'], multi: true }
    );
    expect(applied({ devices: ['$kind-${n}'] }).devices).toEqual(['truck-1', 'truck-2', 'van-1', 'van-2']);
  });

  it('leaves blank entries out', () => {
    withVariables({ name: 'fleet', value: '' });
    expect(applied({ fleets: ['$fleet', ' ', 'fleet-001'] }).fleets).toEqual(['fleet-001']);
  });

  it.each(['fleets', 'states', 'zones', 'severities', 'alertTypes', 'devices'] as const)(
    'lifts the restriction of %s when the variable is at All',
    (name) => {
      withVariables({ name: 'v', value: ['$__all'], options: ['a', 'b'], multi: true, includeAll: true });
      expect(applied({ queryType: 'alerts', [name]: ['$v'] })[name]).toEqual([]);
    }
  );

  it('lifts the restriction when All has the custom value *', () => {
    withVariables({ name: 'fleet', value: '$__all', options: ['a', 'b'], includeAll: true, allValue: '*' });
    expect(applied({ fleets: ['$fleet', 'fleet-001'] }).fleets).toEqual([]);
  });

  it.each([undefined, '*'])('follows every vehicle of a variable at All in a track (custom value %s)', (allValue) => {
    withVariables({
      name: 'device',
      value: ['$__all'],
      options: ['v1', 'v2'],
      multi: true,
      includeAll: true,
      allValue,
    });
    expect(applied({ queryType: 'track', devices: ['$device'] }).devices).toEqual(['v1', 'v2']);
  });

  it('takes the one value of a repeated panel, though the variable is at All', () => {
    withVariables({ name: 'fleet', value: ['$__all'], options: ['a', 'b'], multi: true, includeAll: true });
    expect(applied({ fleets: ['$fleet'] }, { fleet: { value: 'b', text: 'b' } }).fleets).toEqual(['b']);
  });

  it('leaves the stored query as it is', () => {
    withVariables({ name: 'fleet', value: 'fleet-001' });
    const query: FleetQuery = { refId: 'A', fleets: ['$fleet'] };
    fleetDataSource().datasource.applyTemplateVariables(query, {});
    expect(query).toEqual({ refId: 'A', fleets: ['$fleet'] });
  });

  it('fills the queries that go to Explore, with their ad-hoc filters', () => {
    withVariables({ name: 'fleet', value: ['a', 'b'], multi: true });
    const queries = fleetDataSource().datasource.interpolateVariablesInQueries(
      [{ refId: 'A', fleets: ['$fleet'] }],
      {},
      [{ key: 'zone', operator: '=', value: 'depot' }]
    );
    expect(queries).toEqual([
      { refId: 'A', fleets: ['a', 'b'], filters: [{ key: 'zone', operator: '=', value: 'depot' }] },
    ]);
  });
});

describe('template variables in CQL', () => {
  it('inserts scalars as they are', () => {
    withVariables({ name: 'device', value: "o'neil" });
    expect(applied({ cql: "device_id = '$device'" }).cql).toBe("device_id = 'o'neil'");
  });

  it('quotes the values of multi-value variables and doubles their quotes', () => {
    withVariables({ name: 'device', value: ['v1', "o'neil"], multi: true });
    expect(applied({ cql: 'device_id IN ($device)' }).cql).toBe("device_id IN ('v1', 'o''neil')");
  });

  it('quotes the value of a multi-value variable in a repeated panel too', () => {
    withVariables({ name: 'device', value: ['v1', 'v2'], multi: true });
    expect(applied({ cql: 'device_id IN ($device)' }, { device: { value: "o'neil", text: '' } }).cql).toBe(
      "device_id IN ('o''neil')"
    );
  });

  it("leaves the backend's macros alone, also where Grafana has a variable of that name", () => {
    const cql =
      'day IN ($__days) AND $__timeFilter(ts) AND ts > $__timeFrom AND ts < $__timeTo $__interval $__interval_ms';
    const grafanas = {
      __interval: { value: '30s', text: '30s' },
      __interval_ms: { value: 30_000, text: '30000' },
    };
    expect(applied({ cql }, grafanas).cql).toBe(cql);
  });
});

describe('which queries are asked', () => {
  const asks = (query: Partial<FleetQuery>) => fleetDataSource().datasource.filterQuery({ refId: 'A', ...query });

  it('asks a query without anything: newest positions', () => expect(asks({})).toBe(true));

  it('asks no hidden query', () => expect(asks({ hide: true })).toBe(false));

  it('asks a track only of named vehicles', () => {
    expect(asks({ queryType: 'track' })).toBe(false);
    expect(asks({ queryType: 'track', devices: [' '] })).toBe(false);
    expect(asks({ queryType: 'track', devices: ['$device'] })).toBe(true);
  });

  it('asks raw CQL only when there is some', () => {
    expect(asks({ queryType: 'raw', cql: ' \n' })).toBe(false);
    expect(asks({ queryType: 'raw', cql: 'SELECT' })).toBe(true);
  });
});

describe('ad-hoc filters', () => {
  it('go into the query, after those it has', () => {
    withVariables({ name: 'zone', value: 'depot' });
    const query = fleetDataSource().datasource.applyTemplateVariables(
      { refId: 'A', filters: [{ key: 'status', operator: '=', value: 'idle' }] },
      {},
      [
        { key: 'zone', operator: '!=', value: '$zone' },
        { key: 'fleet_id', operator: '=|', value: 'a', values: ['a', 'b'] },
        { key: '', operator: '=', value: '' },
      ]
    );
    expect(query.filters).toEqual([
      { key: 'status', operator: '=', value: 'idle' },
      { key: 'zone', operator: '!=', value: 'depot' },
      { key: 'fleet_id', operator: '=|', value: 'a', values: ['a', 'b'] },
    ]);
  });

  it('are offered by the backend, values within the fleets that are chosen', async () => {
    const { datasource, getResource } = fleetDataSource(
      {},
      { 'filter-keys': [{ text: 'zone' }], 'filter-values': [{ text: 'depot' }] }
    );
    expect(await datasource.getTagKeys()).toEqual([{ text: 'zone' }]);
    const filters = [
      { key: 'fleet_id', operator: '=|', value: 'a', values: ['a', 'b'] },
      { key: 'fleet_id', operator: '!=', value: 'c' },
      { key: 'status', operator: '=', value: 'idle' },
    ];
    expect(await datasource.getTagValues({ key: 'zone', filters })).toEqual([{ text: 'depot' }]);
    expect(getResource).toHaveBeenLastCalledWith('filter-values', { key: 'zone', fleet: ['a', 'b'] });
  });
});

describe('suggestions', () => {
  it('are those of the chosen fleets, with variables filled in', async () => {
    withVariables({ name: 'fleet', value: ['a', 'b'], multi: true });
    const { datasource, getResource } = fleetDataSource({}, { devices: ['a-1'] });
    expect(await datasource.deviceSuggestions(['$fleet'], 'a')).toEqual(['a-1']);
    expect(getResource).toHaveBeenCalledWith(
      'devices',
      { fleet: ['a', 'b'], prefix: 'a', limit: 500 },
      { showErrorAlert: false }
    );
  });

  it('may be none', async () => {
    expect(await fleetDataSource({}, { zones: null }).datasource.zoneSuggestions([])).toEqual([]);
  });
});

describe('default query', () => {
  const { datasource } = fleetDataSource();

  it('is the newest positions, as numbers in alert rules', () => {
    expect(datasource.getDefaultQuery(CoreApp.Dashboard)).toEqual({ queryType: 'latest', format: 'table' });
    expect(datasource.getDefaultQuery(CoreApp.UnifiedAlerting)).toEqual({ queryType: 'latest', format: 'numeric' });
  });
});

describe('annotations', () => {
  const { annotations } = fleetDataSource().datasource;

  it('are alerts', () => {
    expect(annotations.getDefaultQuery?.()).toEqual({ queryType: 'alerts', format: 'annotations' });
  });

  it('ask for alerts as annotations, whatever was stored', () => {
    const annotation = { name: 'Alerts', enable: true, iconColor: 'red' };
    expect(annotations.prepareQuery?.(annotation)).toEqual({
      refId: 'Anno',
      queryType: 'alerts',
      format: 'annotations',
    });
    expect(
      annotations.prepareQuery?.({ ...annotation, target: { refId: 'B', severities: ['HIGH'], format: 'table' } })
    ).toEqual({ refId: 'B', severities: ['HIGH'], queryType: 'alerts', format: 'annotations' });
  });
});

describe('live stream', () => {
  it('replaces the whole frame and never drops vehicles by age', () => {
    const options = fleetDataSource().datasource.streamOptionsProvider();
    expect(options.action).toBe(StreamingFrameAction.Replace);
    expect(options.maxLength).toBeGreaterThanOrEqual(50_000);
    expect(options).not.toHaveProperty('maxDelta');
  });
});

describe('dashboard variables', () => {
  it('ask the backend', async () => {
    const answer = { data: [], errors: [{ message: 'keyspace fleet_iot does not exist' }] };
    const query = jest.spyOn(DataSourceWithBackend.prototype, 'query').mockReturnValue(of(answer));
    const request = {
      targets: [{ variable: 'devices', fleets: ['$fleet'] }],
      requestId: 'Q1',
    } as unknown as DataQueryRequest<FleetQuery>;

    const { datasource } = fleetDataSource();
    expect(await firstValueFrom(datasource.variables.query(request))).toBe(answer);
    expect(query).toHaveBeenCalledWith({
      requestId: 'Q1',
      targets: [{ refId: 'variable', queryType: 'variable', variable: 'devices', fleets: ['$fleet'] }],
    });
  });
});
