import { DataSourcePlugin } from '@grafana/data';

import { ConfigEditor } from './components/ConfigEditor';
import { QueryEditor } from './components/QueryEditor';
import { FleetDataSource } from './datasource';
import { type FleetQuery, type SecureSettings, type Settings } from './types';

export const plugin = new DataSourcePlugin<FleetDataSource, FleetQuery, Settings, SecureSettings>(FleetDataSource)
  .setConfigEditor(ConfigEditor)
  .setQueryEditor(QueryEditor);
