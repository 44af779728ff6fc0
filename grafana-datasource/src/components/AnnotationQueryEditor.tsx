import { type AnnotationQuery, type QueryEditorProps } from '@grafana/data';
import React from 'react';

import { type FleetDataSource } from '../datasource';
import { type FleetQuery, type Settings } from '../types';
import { AlertSelection } from './forms/AlertsForm';

interface Props extends QueryEditorProps<FleetDataSource, FleetQuery, Settings> {
  annotation?: AnnotationQuery<FleetQuery>;
}

/** Annotations are alerts: what is left to choose is which. */
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
