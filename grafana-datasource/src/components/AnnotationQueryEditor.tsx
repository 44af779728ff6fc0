import { type AnnotationQuery, type QueryEditorProps } from '@grafana/data';
import React from 'react';

import { type EditorDataSource, type FleetQuery, type Settings } from '../types';
import { AlertSelection } from './forms/AlertsForm';

interface Props extends QueryEditorProps<EditorDataSource, FleetQuery, Settings> {
  annotation?: AnnotationQuery<FleetQuery>;
}

/** Selects the alerts that become annotations. */
export function AnnotationQueryEditor({ datasource, query, onChange, onRunQuery }: Props) {
  return (
    <AlertSelection
      datasource={datasource}
      query={query}
      change={(patch) => {
        onChange({ ...query, ...patch, queryType: 'alerts', format: 'annotations' });
        onRunQuery();
      }}
    />
  );
}
