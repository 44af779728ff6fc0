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

  it('makes one entry of each value, without duplicates', () => {
    withVariables({ name: 'fleet', value: ['fleet-001', 'fleet-002'], multi: true });
    expect(applied({ fleets: ['fleet-002', '$fleet', 'fleet-009'] }).fleets).toEqual([
      'fleet-002',
      'fleet-001',
      'fleet-009',
    ]);
  });

  it('does not split a value with commas or braces', () => {
    withVariables({ name: 'zone', value: ['yard, north', '{b}'], multi: true });
    expect(applied({ zones: ['$zone'] }).zones).toEqual(['yard, north', '{b}']);
  });

  it('expands variables inside a longer text', () => {
    withVariables(
      { name: 'n', value: ['1', '2'], multi: true },
      { name: 'kind', value: ['truck', 'van'], multi: true }
    );
    expect(applied({ devices: ['$kind-${n}'] }).devices).toEqual(['truck-1', 'truck-2', 'van-1', 'van-2']);
  });

  it('drops blank entries', () => {
    withVariables({ name: 'fleet', value: '' });
    expect(applied({ fleets: ['$fleet', ' ', 'fleet-001'] }).fleets).toEqual(['fleet-001']);
  });

  it.each(['fleets', 'states', 'zones', 'severities', 'alertTypes', 'devices'] as const)(
    'removes the filter on %s if the variable is set to All',
    (name) => {
      withVariables({ name: 'v', value: ['$__all'], options: ['a', 'b'], multi: true, includeAll: true });
      expect(applied({ queryType: 'alerts', [name]: ['$v'] })[name]).toEqual([]);
    }
  );

  it('removes the filter if All has the custom value *', () => {
    withVariables({ name: 'fleet', value: '$__all', options: ['a', 'b'], includeAll: true, allValue: '*' });
    expect(applied({ fleets: ['$fleet', 'fleet-001'] }).fleets).toEqual([]);
  });

  it.each([undefined, '*'])('lists every vehicle of a variable set to All in a track (custom value %s)', (allValue) => {
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

  it('uses the value of a repeated panel if the variable is set to All', () => {
    withVariables({ name: 'fleet', value: ['$__all'], options: ['a', 'b'], multi: true, includeAll: true });
    expect(applied({ fleets: ['$fleet'] }, { fleet: { value: 'b', text: 'b' } }).fleets).toEqual(['b']);
  });

  it('does not change the stored query', () => {
    withVariables({ name: 'fleet', value: 'fleet-001' });
    const query: FleetQuery = { refId: 'A', fleets: ['$fleet'] };
    fleetDataSource().datasource.applyTemplateVariables(query, {});
    expect(query).toEqual({ refId: 'A', fleets: ['$fleet'] });
  });

  it('fills queries for Explore, with their ad hoc filters', () => {
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
  it('inserts single values unchanged', () => {
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

  it('keeps macros of the backend, even if Grafana has a variable with that name', () => {
    const cql =
      'day IN ($__days) AND $__timeFilter(ts) AND ts > $__timeFrom AND ts < $__timeTo $__interval $__interval_ms';
    const grafanas = {
      __interval: { value: '30s', text: '30s' },
      __interval_ms: { value: 30_000, text: '30000' },
    };
    expect(applied({ cql }, grafanas).cql).toBe(cql);
  });
});

describe('filterQuery', () => {
  const runs = (query: Partial<FleetQuery>) => fleetDataSource().datasource.filterQuery({ refId: 'A', ...query });

  it('runs an empty query', () => expect(runs({})).toBe(true));

  it('does not run a hidden query', () => expect(runs({ hide: true })).toBe(false));

  it('runs a track only with vehicles', () => {
    expect(runs({ queryType: 'track' })).toBe(false);
    expect(runs({ queryType: 'track', devices: [' '] })).toBe(false);
    expect(runs({ queryType: 'track', devices: ['$device'] })).toBe(true);
  });

  it('runs raw CQL only with a statement', () => {
    expect(runs({ queryType: 'raw', cql: ' \n' })).toBe(false);
    expect(runs({ queryType: 'raw', cql: 'SELECT' })).toBe(true);
  });
});

describe('ad hoc filters', () => {
  it('are appended to the filters of the query', () => {
    withVariables({ name: 'zone', value: 'depot' });
    const query = fleetDataSource().datasource.applyTemplateVariables(
      { refId: 'A', filters: [{ key: 'status', operator: '=', value: 'stopped' }] },
      {},
      [
        { key: 'zone', operator: '!=', value: '$zone' },
        { key: 'fleet_id', operator: '=|', value: 'a', values: ['a', 'b'] },
        { key: '', operator: '=', value: '' },
      ]
    );
    expect(query.filters).toEqual([
      { key: 'status', operator: '=', value: 'stopped' },
      { key: 'zone', operator: '!=', value: 'depot' },
      { key: 'fleet_id', operator: '=|', value: 'a', values: ['a', 'b'] },
    ]);
  });

  it('come from the backend, with values of the chosen fleets', async () => {
    const { datasource, getResource } = fleetDataSource(
      {},
      { 'filter-keys': [{ text: 'zone' }], 'filter-values': [{ text: 'depot' }] }
    );
    expect(await datasource.getTagKeys()).toEqual([{ text: 'zone' }]);
    const filters = [
      { key: 'fleet_id', operator: '=|', value: 'a', values: ['a', 'b'] },
      { key: 'fleet_id', operator: '!=', value: 'c' },
      { key: 'status', operator: '=', value: 'stopped' },
    ];
    expect(await datasource.getTagValues({ key: 'zone', filters })).toEqual([{ text: 'depot' }]);
    expect(getResource).toHaveBeenLastCalledWith('filter-values', { key: 'zone', fleet: ['a', 'b'] });
  });
});

describe('suggestions', () => {
  it('come from the chosen fleets, with variables expanded', async () => {
    withVariables({ name: 'fleet', value: ['a', 'b'], multi: true });
    const { datasource, getResource } = fleetDataSource({}, { devices: ['a-1'] });
    expect(await datasource.deviceSuggestions(['$fleet'], 'a')).toEqual(['a-1']);
    expect(getResource).toHaveBeenCalledWith(
      'devices',
      { fleet: ['a', 'b'], prefix: 'a', limit: 500 },
      { showErrorAlert: false }
    );
  });

  it('may be empty', async () => {
    expect(await fleetDataSource({}, { zones: null }).datasource.zoneSuggestions([])).toEqual([]);
  });
});

describe('default query', () => {
  const { datasource } = fleetDataSource();

  it('is latest positions, as numbers in alert rules', () => {
    expect(datasource.getDefaultQuery(CoreApp.Dashboard)).toEqual({ queryType: 'latest', format: 'table' });
    expect(datasource.getDefaultQuery(CoreApp.UnifiedAlerting)).toEqual({ queryType: 'latest', format: 'numeric' });
  });
});

describe('annotations', () => {
  const { annotations } = fleetDataSource().datasource;

  it('are alerts', () => {
    expect(annotations.getDefaultQuery?.()).toEqual({ queryType: 'alerts', format: 'annotations' });
  });

  it('always query alerts in the format annotations', () => {
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
  it('query the backend', async () => {
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
