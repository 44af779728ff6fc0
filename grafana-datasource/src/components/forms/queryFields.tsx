import { InlineFieldRow } from '@grafana/ui';
import React from 'react';

import { type FleetDataSource } from '../../datasource';
import { formatChoices, formatOf } from '../../queryTypes';
import { type FleetQuery } from '../../types';
import { ChoiceField } from '../ChoiceField';
import { ListField } from '../ListField';
import { NumberField } from '../NumberField';

export interface QueryFormProps {
  datasource: FleetDataSource;
  query: FleetQuery;
  /** Changes parts of the query and runs it. */
  change: (patch: Partial<FleetQuery>) => void;
}

/** An empty list and no list are the same restriction: none. */
export function orNone(values: string[]): string[] | undefined {
  return values.length > 0 ? values : undefined;
}

export function FleetsField({ datasource, query, change }: QueryFormProps) {
  return (
    <ListField
      label="Fleets"
      tooltip="Only these fleets are read. Without any, every fleet that the data source may show is read."
      placeholder="All fleets"
      values={query.fleets}
      load={() => datasource.fleetSuggestions()}
      variables={datasource.variableNames()}
      onChange={(fleets) => change({ fleets: orNone(fleets) })}
    />
  );
}

export function DevicesField({ datasource, query, change, required }: QueryFormProps & { required?: boolean }) {
  return (
    <ListField
      label="Vehicles"
      tooltip={
        required
          ? 'The vehicles to follow. Each adds a read for each day of the time range; without any, nothing is asked.'
          : 'Only these vehicles are shown. Without any, all of the fleets are.'
      }
      placeholder={required ? 'Choose vehicles' : 'All vehicles'}
      values={query.devices}
      required={required}
      pageSize={datasource.devicesAtOnce}
      load={(prefix) => datasource.deviceSuggestions(query.fleets, prefix)}
      variables={datasource.variableNames()}
      onChange={(devices) => change({ devices: orNone(devices) })}
    />
  );
}

interface FieldsProps extends QueryFormProps {
  fields: Array<[value: string, label: string]>;
  /** What the backend shows when none is chosen. */
  unchosen: string;
}

export function FieldsField({ query, change, fields, unchosen }: FieldsProps) {
  return (
    <ListField
      label="Fields"
      tooltip="The values to show, each as a series of its own."
      placeholder={unchosen}
      values={query.fields}
      choices={fields.map(([value, label]) => ({ value, label }))}
      onChange={(values) => change({ fields: orNone(values) })}
    />
  );
}

export function LimitField({ datasource, query, change }: QueryFormProps) {
  return (
    <NumberField
      label="Limit"
      tooltip="The most rows to show. The limit of the data source holds in any case; a notice tells when rows are left out."
      placeholder={String(datasource.maxRows)}
      value={query.limit}
      min={1}
      integer
      onChange={(limit) => change({ limit })}
    />
  );
}

/** How the answer comes: its format and limit, and what a form adds to them. */
export function AnswerRow({ children, ...props }: QueryFormProps & { children?: React.ReactNode }) {
  return (
    <InlineFieldRow>
      <FormatField {...props} />
      <LimitField {...props} />
      {children}
    </InlineFieldRow>
  );
}

export function FormatField({ query, change }: QueryFormProps) {
  return (
    <ChoiceField
      label="Format"
      tooltip="The shape of the answer. Alert rules need numbers or a time series."
      value={formatOf(query)}
      choices={formatChoices(query)}
      onChange={(format) =>
        // Tables have all fields, and nothing but a table is live.
        change(format === 'table' ? { format, fields: undefined } : { format, live: undefined })
      }
    />
  );
}
