import { type DataSourceApi, type DataSourceJsonData } from '@grafana/data';
import { type DataQuery } from '@grafana/schema';

/** The types in the query editor. */
export type PanelQueryType = 'latest' | 'track' | 'analytics' | 'alerts' | 'devices' | 'fleets' | 'geofences' | 'raw';

/** Only dashboard variables use `variable`. */
export type QueryType = PanelQueryType | 'variable';

export type Format = 'table' | 'time_series' | 'numeric' | 'logs' | 'annotations';

export type VehicleState = 'moving' | 'stopped' | 'stale' | 'offline';

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
 * The query as dashboards store it and the backend receives it. Lists are plain strings because their entries may be
 * template variables.
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
  queryMegabytes?: number;
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

/** Write-only: Grafana encrypts them, and the browser sees only whether they are set. */
export interface SecureSettings {
  password?: string;
  tlsCACert?: string;
  tlsClientCert?: string;
  tlsClientKey?: string;
}

/** The response of the resource `schema`. */
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

/** The data source as its editors use it. */
export interface EditorDataSource extends DataSourceApi<FleetQuery, Settings> {
  readonly allowRaw: boolean;
  readonly maxRows: number;
  /** How many vehicles are suggested at once; typing the start of a name finds others. */
  readonly maxDeviceSuggestions: number;
  fleetSuggestions(): Promise<string[]>;
  deviceSuggestions(fleets: string[] | undefined, prefix: string): Promise<string[]>;
  zoneSuggestions(fleets: string[] | undefined): Promise<string[]>;
  alertTypeSuggestions(fleets: string[] | undefined): Promise<string[]>;
  schema(): Promise<Schema>;
  /** The template variables of the dashboard, as they are written in a list. */
  variableNames(): string[];
}
