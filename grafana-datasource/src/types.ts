import { type DataSourceJsonData } from '@grafana/data';
import { type DataQuery } from '@grafana/schema';

/** What a person can choose in the query editor. */
export type PanelQueryType = 'latest' | 'track' | 'analytics' | 'alerts' | 'devices' | 'fleets' | 'geofences' | 'raw';

/** `variable` is asked by dashboard variables alone. */
export type QueryType = PanelQueryType | 'variable';

export type Format = 'table' | 'time_series' | 'numeric' | 'logs' | 'annotations';

export type VehicleState = 'moving' | 'idle' | 'stale' | 'offline';

export type Severity = 'HIGH' | 'MEDIUM' | 'LOW';

export type Resolved = 'any' | 'open' | 'resolved';

export type VariableKind = 'fleets' | 'devices' | 'zones' | 'severities' | 'alert_types' | 'states';

export interface FleetFilter {
  key: string;
  operator: '=' | '!=' | '=|' | '!=|' | '=~' | '!~' | '<' | '>';
  value: string;
  values?: string[];
}

/**
 * The query as it is stored in dashboards and sent to the backend. The entries of fleets, devices, states, zones,
 * severities and alertTypes may hold template variables, which is why they are plain strings.
 */
export interface FleetQuery extends DataQuery {
  queryType?: QueryType;
  format?: Format;
  fleets?: string[];
  devices?: string[];
  states?: string[];
  zones?: string[];
  minSpeedKmh?: number;
  maxSpeedKmh?: number;
  minBatteryPct?: number;
  maxBatteryPct?: number;
  severities?: string[];
  alertTypes?: string[];
  resolved?: Resolved;
  fields?: string[];
  limit?: number;
  live?: boolean;
  cql?: string;
  filters?: FleetFilter[];
  variable?: VariableKind;
}

export interface Settings extends DataSourceJsonData {
  contactPoints?: string;
  localDatacenter?: string;
  keyspace?: string;
  consistency?: string;
  username?: string;
  tls?: boolean;
  tlsServerName?: string;
  tlsSkipVerify?: boolean;
  queryTimeout?: string;
  connectTimeout?: string;
  maxConcurrency?: number;
  maxPartitions?: number;
  maxRows?: number;
  maxRowsRead?: number;
  latestCache?: string;
  closedDayCache?: string;
  cacheMegabytes?: number;
  staleAfter?: string;
  offlineAfter?: string;
  movingAboveKmh?: number;
  liveInterval?: string;
  allowedFleets?: string;
  allowFiltering?: boolean;
  allowRaw?: boolean;
}

/** Write-only: Grafana keeps them encrypted and tells the browser only which of them are set. */
export interface SecureSettings {
  password?: string;
  tlsCACert?: string;
  tlsClientCert?: string;
  tlsClientKey?: string;
}

/** The answer of the backend's resource `schema`. */
export interface Schema {
  keyspace: string;
  tables: Table[];
}

export interface Table {
  name: string;
  partitionKey: string[];
  clusteringKey: string[];
  columns: Array<{ name: string; type: string }>;
}
