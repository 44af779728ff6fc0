import { type DataSourceInstanceSettings } from '@grafana/data';

import { FleetDataSource } from '../datasource';
import plugin from '../plugin.json';
import { type Settings } from '../types';

type Responses = Record<string, unknown>;

/** A data source whose resources return these responses; a response that is an Error is thrown. */
export function fleetDataSource(settings: Partial<Settings> = {}, resources: Responses = {}) {
  const datasource = new FleetDataSource({
    id: 1,
    uid: 'fleet',
    type: plugin.id,
    name: 'Fleet',
    jsonData: { contactPoints: '127.0.0.1', ...settings },
  } as unknown as DataSourceInstanceSettings<Settings>);
  const getResource = jest.spyOn(datasource, 'getResource').mockImplementation(async (path) => {
    const response = resources[path];
    if (response instanceof Error) {
      throw response;
    }
    return response;
  });
  return { datasource, getResource };
}
