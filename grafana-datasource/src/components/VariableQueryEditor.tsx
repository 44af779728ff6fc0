import { type QueryEditorProps } from '@grafana/data';
import { Combobox, InlineField } from '@grafana/ui';
import React, { useId } from 'react';

import { type EditorDataSource, type FleetQuery, type Settings, type VariableKind } from '../types';
import { FleetsField } from './forms/queryFields';
import { LABEL_WIDTH } from './ListField';

const KINDS: Array<{ value: VariableKind; label: string; description: string; ofFleets: boolean }> = [
  { value: 'fleets', label: 'Fleets', description: 'The fleets that the data source may read', ofFleets: false },
  { value: 'devices', label: 'Vehicles', description: 'The vehicles of the chosen fleets', ofFleets: true },
  { value: 'zones', label: 'Geofences', description: 'The geofences of the chosen fleets', ofFleets: true },
  { value: 'alert_types', label: 'Alert types', description: 'The types of recent alerts', ofFleets: true },
  { value: 'severities', label: 'Severities', description: 'The severities of alerts', ofFleets: false },
  { value: 'states', label: 'States', description: 'The states of vehicles', ofFleets: false },
];

type Props = QueryEditorProps<EditorDataSource, FleetQuery, Settings>;

export function VariableQueryEditor({ datasource, query, onChange, onRunQuery }: Props) {
  const kindId = useId();
  const kind = KINDS.find(({ value }) => value === query.variable) ?? KINDS[0];

  const replace = (variable: VariableKind, fleets: string[] | undefined) => {
    onChange({ refId: query.refId || 'variable', queryType: 'variable', variable, ...(fleets && { fleets }) });
    onRunQuery();
  };

  return (
    <>
      <InlineField label="Values" tooltip="The values that the variable offers." labelWidth={LABEL_WIDTH}>
        <Combobox<VariableKind>
          id={kindId}
          width={40}
          value={kind}
          options={KINDS.map(({ value, label, description }) => ({ value, label, description }))}
          onChange={({ value }) => {
            const next = KINDS.find((candidate) => candidate.value === value);
            replace(value, next?.ofFleets ? query.fleets : undefined);
          }}
        />
      </InlineField>
      {kind.ofFleets && (
        <FleetsField datasource={datasource} query={query} change={({ fleets }) => replace(kind.value, fleets)} />
      )}
    </>
  );
}
