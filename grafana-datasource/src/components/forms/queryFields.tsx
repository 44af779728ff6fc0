import { InlineFieldRow } from '@grafana/ui';
import React from 'react';

import { formatChoices, formatOf } from '../../queryTypes';
import { type EditorDataSource, type FleetQuery } from '../../types';
import { ChoiceField } from '../ChoiceField';
import { ListField, type ListFieldProps } from '../ListField';
import { NumberField } from '../NumberField';

export interface QueryFormProps {
  datasource: EditorDataSource;
  query: FleetQuery;
  /** Changes parts of the query and runs it. */
  change: (patch: Partial<FleetQuery>) => void;
}

interface QueryListFieldProps extends QueryFormProps, Omit<ListFieldProps, 'values' | 'variables' | 'onChange'> {
  /** The list of the query that the field edits. */
  name: 'fleets' | 'devices' | 'states' | 'zones' | 'severities' | 'alertTypes' | 'fields';
}

/** A list of the query. An empty list is left out of the query: it restricts nothing. */
export function QueryListField({ datasource, query, change, name, ...field }: QueryListFieldProps) {
  return (
    <ListField
      {...field}
      values={query[name]}
      variables={name === 'fields' ? undefined : datasource.variableNames()}
      onChange={(values) => change({ [name]: values.length > 0 ? values : undefined })}
    />
  );
}

export function FleetsField(props: QueryFormProps) {
  return (
    <QueryListField
      {...props}
      name="fleets"
      label="Fleets"
      tooltip="Only these fleets. Empty: all fleets that the data source may read."
      placeholder="All fleets"
      load={() => props.datasource.fleetSuggestions()}
    />
  );
}

export function DevicesField({ required, ...props }: QueryFormProps & { required?: boolean }) {
  const { datasource, query } = props;
  return (
    <QueryListField
      {...props}
      name="devices"
      label="Vehicles"
      tooltip={
        required
          ? 'The vehicles to show. Each vehicle adds one read per day of the time range. Empty: the query does not run.'
          : 'Only these vehicles. Empty: all vehicles of the fleets.'
      }
      placeholder={required ? 'Choose vehicles' : 'All vehicles'}
      required={required}
      pageSize={datasource.maxDeviceSuggestions}
      load={(prefix) => datasource.deviceSuggestions(query.fleets, prefix)}
    />
  );
}

export function FleetsAndDevicesRow(props: QueryFormProps) {
  return (
    <InlineFieldRow>
      <FleetsField {...props} />
      <DevicesField {...props} />
    </InlineFieldRow>
  );
}

interface FieldsProps extends QueryFormProps {
  fields: Array<[value: string, label: string]>;
  /** What the backend shows if no field is chosen. */
  unchosen: string;
}

export function FieldsField({ fields, unchosen, ...props }: FieldsProps) {
  return (
    <QueryListField
      {...props}
      name="fields"
      label="Fields"
      tooltip="The values to show, one series for each."
      placeholder={unchosen}
      choices={fields.map(([value, label]) => ({ value, label }))}
    />
  );
}

export function LimitField({ datasource, query, change }: QueryFormProps) {
  return (
    <NumberField
      label="Limit"
      tooltip="The maximum number of rows, at most the limit of the data source. A notice shows if rows are missing."
      placeholder={String(datasource.maxRows)}
      value={query.limit}
      min={1}
      integer
      onChange={(limit) => change({ limit })}
    />
  );
}

/** The format and limit of the response, and what a form adds to them. */
export function ResponseRow({ children, ...props }: QueryFormProps & { children?: React.ReactNode }) {
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
      tooltip="The shape of the response. Alert rules need numbers or a time series."
      value={formatOf(query)}
      choices={formatChoices(query)}
      onChange={(format) =>
        // A table has all fields, and only a table can be live.
        change(format === 'table' ? { format, fields: undefined } : { format, live: undefined })
      }
    />
  );
}
