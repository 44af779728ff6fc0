import { type QueryEditorProps } from '@grafana/data';
import { Combobox, InlineField } from '@grafana/ui';
import React, { type ComponentType, useId } from 'react';

import { QUERY_TYPES, queryTypeOf, withQueryType } from '../queryTypes';
import { type EditorDataSource, type FleetQuery, type PanelQueryType, type QueryType, type Settings } from '../types';
import { AlertsForm } from './forms/AlertsForm';
import { AnalyticsForm } from './forms/AnalyticsForm';
import { LatestForm } from './forms/LatestForm';
import { type QueryFormProps } from './forms/queryFields';
import { RawForm } from './forms/RawForm';
import { RegistryForm } from './forms/RegistryForm';
import { TrackForm } from './forms/TrackForm';
import { LABEL_WIDTH } from './ListField';

const FORMS: Partial<Record<QueryType, ComponentType<QueryFormProps>>> = {
  latest: LatestForm,
  track: TrackForm,
  analytics: AnalyticsForm,
  alerts: AlertsForm,
  devices: RegistryForm,
  fleets: RegistryForm,
  geofences: RegistryForm,
  raw: RawForm,
};

export function QueryEditor(props: QueryEditorProps<EditorDataSource, FleetQuery, Settings>) {
  const { datasource, query, onChange, onRunQuery } = props;
  const typeId = useId();
  const queryType = queryTypeOf(query);
  const Form = FORMS[queryType];

  const replace = (next: FleetQuery) => {
    onChange(next);
    onRunQuery();
  };
  const choices = QUERY_TYPES.filter(({ value }) => value !== 'raw' || datasource.allowRaw || queryType === 'raw');

  return (
    <div>
      <InlineField
        label="Query type"
        tooltip="The data to query. A new type keeps the filters that it also has."
        labelWidth={LABEL_WIDTH}
      >
        <Combobox<PanelQueryType>
          id={typeId}
          width={40}
          value={choices.find(({ value }) => value === queryType) ?? null}
          options={choices.map(({ value, label, description }) => ({ value, label, description }))}
          onChange={({ value }) => replace(withQueryType(query, value))}
        />
      </InlineField>
      {Form && <Form datasource={datasource} query={query} change={(patch) => replace({ ...query, ...patch })} />}
    </div>
  );
}
