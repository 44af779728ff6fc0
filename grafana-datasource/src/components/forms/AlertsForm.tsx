import { InlineFieldRow } from '@grafana/ui';
import React from 'react';

import { type Resolved, type Severity } from '../../types';
import { ChoiceField } from '../ChoiceField';
import { ListField } from '../ListField';
import { DevicesField, FleetsField, FormatField, LimitField, orNone, type QueryFormProps } from './queryFields';

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

/** Which alerts to show: the part that panels and annotations share. */
export function AlertSelection(props: QueryFormProps) {
  const { datasource, query, change } = props;
  const variables = datasource.variableNames();
  return (
    <>
      <InlineFieldRow>
        <FleetsField {...props} />
        <DevicesField {...props} />
      </InlineFieldRow>
      <InlineFieldRow>
        <ListField
          label="Severities"
          tooltip="Only alerts of these severities are read: each severity is a partition of its own, so fewer are faster."
          placeholder="All severities"
          values={query.severities}
          choices={SEVERITIES}
          variables={variables}
          onChange={(severities) => change({ severities: orNone(severities) })}
        />
        <ListField
          label="Alert types"
          tooltip="Only alerts of these types are shown."
          placeholder="All types"
          values={query.alertTypes}
          load={() => datasource.alertTypeSuggestions(query.fleets)}
          variables={variables}
          onChange={(alertTypes) => change({ alertTypes: orNone(alertTypes) })}
        />
      </InlineFieldRow>
      <InlineFieldRow>
        <ChoiceField
          label="Resolved"
          tooltip="Whether to show alerts that are still open, those that are resolved, or both."
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
