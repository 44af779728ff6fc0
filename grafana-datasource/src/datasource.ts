import {
  type AdHocVariableFilter,
  CoreApp,
  type DataSourceGetTagKeysOptions,
  type DataSourceGetTagValuesOptions,
  type DataSourceInstanceSettings,
  type MetricFindValue,
  type ScopedVars,
  StreamingFrameAction,
} from '@grafana/data';
import { DataSourceWithBackend, getTemplateSrv } from '@grafana/runtime';

import { alertAnnotations } from './annotations';
import { describeQuery, queryTypeOf } from './queryTypes';
import { DEFAULTS } from './settings';
import { expand, interpolateCql } from './templates';
import { type EditorDataSource, type FleetFilter, type FleetQuery, type Schema, type Settings } from './types';
import { FleetVariables } from './variables';

/** More vehicles than a map can show. A longer packet would lose its first rows. */
const LIVE_ROWS = 100_000;

export class FleetDataSource extends DataSourceWithBackend<FleetQuery, Settings> implements EditorDataSource {
  annotations = alertAnnotations;
  variables = new FleetVariables((request) => this.query(request));
  readonly maxDeviceSuggestions = 500;
  readonly allowRaw: boolean;
  readonly maxRows: number;

  /** Each packet of the live map contains the whole fleet, so it replaces the one before. */
  streamOptionsProvider = () => ({ action: StreamingFrameAction.Replace, maxLength: LIVE_ROWS });

  constructor(instanceSettings: DataSourceInstanceSettings<Settings>) {
    super(instanceSettings);
    this.allowRaw = instanceSettings.jsonData.allowRaw ?? DEFAULTS.allowRaw;
    this.maxRows = instanceSettings.jsonData.maxRows ?? DEFAULTS.maxRows;
  }

  getDefaultQuery(app: CoreApp): Partial<FleetQuery> {
    const alerting = app === CoreApp.UnifiedAlerting || app === CoreApp.CloudAlerting;
    return { queryType: 'latest', format: alerting ? 'numeric' : 'table' };
  }

  getQueryDisplayText(query: FleetQuery): string {
    return describeQuery(query);
  }

  filterQuery(query: FleetQuery): boolean {
    if (query.hide) {
      return false;
    }
    switch (query.queryType) {
      case 'track':
        return Boolean(query.devices?.some((device) => device.trim() !== ''));
      case 'raw':
        return Boolean(query.cql?.trim());
      default:
        return true;
    }
  }

  applyTemplateVariables(query: FleetQuery, scopedVars: ScopedVars, filters?: AdHocVariableFilter[]): FleetQuery {
    const restriction = (entries: string[] | undefined) => {
      const { all, values } = expand(entries, scopedVars);
      return all ? [] : values;
    };
    const expanded: FleetQuery = { ...query };
    for (const name of ['fleets', 'states', 'zones', 'severities', 'alertTypes'] as const) {
      if (query[name]) {
        expanded[name] = restriction(query[name]);
      }
    }
    if (query.devices) {
      // A track reads the partitions of named devices, so an empty list does not mean every device.
      expanded.devices =
        queryTypeOf(query) === 'track' ? expand(query.devices, scopedVars).values : restriction(query.devices);
    }
    if (query.cql) {
      expanded.cql = interpolateCql(query.cql, scopedVars);
    }
    const adHoc = [...(query.filters ?? []), ...toFleetFilters(filters ?? [], scopedVars)];
    if (adHoc.length > 0) {
      expanded.filters = adHoc;
    }
    return expanded;
  }

  getTagKeys(_?: DataSourceGetTagKeysOptions<FleetQuery>): Promise<MetricFindValue[]> {
    return this.getResource('filter-keys');
  }

  getTagValues({ key, filters }: DataSourceGetTagValuesOptions<FleetQuery>): Promise<MetricFindValue[]> {
    const fleet = filters
      .filter((filter) => filter.key === 'fleet_id' && (filter.operator === '=' || filter.operator === '=|'))
      .flatMap(({ value, values }) => values ?? [value]);
    return this.getResource('filter-values', { key, ...(fleet.length > 0 && { fleet }) });
  }

  fleetSuggestions(): Promise<string[]> {
    return this.suggestions('fleets', {});
  }

  deviceSuggestions(fleets: string[] | undefined, prefix: string): Promise<string[]> {
    return this.suggestions('devices', {
      ...this.fleetParam(fleets),
      ...(prefix && { prefix }),
      limit: this.maxDeviceSuggestions,
    });
  }

  zoneSuggestions(fleets: string[] | undefined): Promise<string[]> {
    return this.suggestions('zones', this.fleetParam(fleets));
  }

  alertTypeSuggestions(fleets: string[] | undefined): Promise<string[]> {
    return this.suggestions('alert-types', this.fleetParam(fleets));
  }

  schema(): Promise<Schema> {
    return this.getResource('schema', undefined, { showErrorAlert: false });
  }

  variableNames(): string[] {
    return getTemplateSrv()
      .getVariables()
      .filter(({ type }) => type === 'query' || type === 'custom' || type === 'textbox' || type === 'constant')
      .map(({ name }) => `$${name}`);
  }

  private fleetParam(fleets: string[] | undefined): { fleet?: string[] } {
    const { all, values } = expand(fleets, {});
    return all || values.length === 0 ? {} : { fleet: values };
  }

  private async suggestions(path: string, params: Record<string, unknown>): Promise<string[]> {
    // The field shows the error.
    return (await this.getResource<string[] | null>(path, params, { showErrorAlert: false })) ?? [];
  }
}

function toFleetFilters(filters: AdHocVariableFilter[], scopedVars: ScopedVars): FleetFilter[] {
  const interpolate = (text: string) => getTemplateSrv().replace(text, scopedVars);
  return filters
    .filter(({ key, operator }) => key && operator)
    .map(({ key, operator, value, values }) => ({
      key,
      operator: operator as FleetFilter['operator'],
      value: interpolate(value),
      ...(values && { values: values.map(interpolate) }),
    }));
}
