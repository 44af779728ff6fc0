import { InlineFieldRow } from '@grafana/ui';
import React from 'react';

import { type Resolved, type Severity } from '../../types';
import { ChoiceField } from '../ChoiceField';
import { FleetsAndDevicesRow, FormatField, LimitField, QueryListField, type QueryFormProps } from './queryFields';

const SEVERITIES: Array<{ value: Severity; label: string }> = [
  { value: 'HIGH', label: 'High' },
  { value: 'MEDIUM', label: 'Medium' },
  { value: 'LOW', label: 'Low' },
];

const RESOLVED: Array<{ value: Resolved; label: string }> = [
  { value: 'any', label: 'Any' },
  { value: 'open', label: 'Open' },
  { value: 'resolved', label: 'Resolved' },
];

/** Selects alerts, for panels and annotations. */
export function AlertSelection(props: QueryFormProps) {
  const { datasource, query, change } = props;
  return (
    <>
      <FleetsAndDevicesRow {...props} />
      <InlineFieldRow>
        <QueryListField
          {...props}
          name="severities"
          label="Severities"
          tooltip="Only alerts of these severities. Each severity is a partition, so fewer severities are faster."
          placeholder="All severities"
          choices={SEVERITIES}
        />
        <QueryListField
          {...props}
          name="alertTypes"
          label="Alert types"
          tooltip="Only alerts of these types."
          placeholder="All types"
          load={() => datasource.alertTypeSuggestions(query.fleets)}
        />
      </InlineFieldRow>
      <InlineFieldRow>
        <ChoiceField
          label="Resolved"
          tooltip="Open alerts, resolved alerts, or both."
          value={query.resolved ?? 'any'}
          choices={RESOLVED}
          onChange={(resolved) => change({ resolved: resolved === 'any' ? undefined : resolved })}
        />
        <LimitField {...props} />
      </InlineFieldRow>
    </>
  );
}

export function AlertsForm(props: QueryFormProps) {
  return (
    <>
      <AlertSelection {...props} />
      <FormatField {...props} />
    </>
  );
}
