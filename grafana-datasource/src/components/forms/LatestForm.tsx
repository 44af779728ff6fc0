import { InlineField, InlineFieldRow, InlineSwitch } from '@grafana/ui';
import React, { useId } from 'react';

import { formatOf } from '../../queryTypes';
import { type VehicleState } from '../../types';
import { LABEL_WIDTH, ListField } from '../ListField';
import { NumberField } from '../NumberField';
import { AnswerRow, DevicesField, FieldsField, FleetsField, orNone, type QueryFormProps } from './queryFields';

const STATES: Array<{ value: VehicleState; label: string; description: string }> = [
  { value: 'moving', label: 'Moving', description: 'Faster than the threshold of the data source' },
  { value: 'idle', label: 'Idle', description: 'Sends, but stands' },
  { value: 'stale', label: 'Stale', description: 'Has been silent for a while' },
  { value: 'offline', label: 'Offline', description: 'Has been silent for long' },
];

const NUMBERS: Array<[string, string]> = [
  ['age_s', 'Age of the fix (s)'],
  ['speed_kmh', 'Speed (km/h)'],
  ['battery_pct', 'Battery (%)'],
  ['temp_c', 'Temperature (°C)'],
];

export function LatestForm(props: QueryFormProps) {
  const { datasource, query, change } = props;
  const liveId = useId();
  const format = formatOf(query);
  const variables = datasource.variableNames();

  return (
    <>
      <InlineFieldRow>
        <FleetsField {...props} />
        <DevicesField {...props} />
      </InlineFieldRow>
      <InlineFieldRow>
        <ListField
          label="States"
          tooltip="Only vehicles in these states are shown."
          placeholder="All states"
          values={query.states}
          choices={STATES}
          variables={variables}
          onChange={(states) => change({ states: orNone(states) })}
        />
        <ListField
          label="Zones"
          tooltip="Only vehicles whose newest fix lies in these zones are shown."
          placeholder="All zones"
          values={query.zones}
          load={() => datasource.zoneSuggestions(query.fleets)}
          variables={variables}
          onChange={(zones) => change({ zones: orNone(zones) })}
        />
      </InlineFieldRow>
      <InlineFieldRow>
        <NumberField
          label="Speed from (km/h)"
          tooltip="Slower vehicles, and those that report no speed, are left out."
          placeholder="any"
          value={query.minSpeedKmh}
          min={0}
          onChange={(minSpeedKmh) => change({ minSpeedKmh })}
        />
        <NumberField
          label="Speed to (km/h)"
          tooltip="Faster vehicles, and those that report no speed, are left out."
          placeholder="any"
          value={query.maxSpeedKmh}
          min={0}
          onChange={(maxSpeedKmh) => change({ maxSpeedKmh })}
        />
      </InlineFieldRow>
      <InlineFieldRow>
        <NumberField
          label="Battery from (%)"
          tooltip="Vehicles with less charge, and those that report none, are left out."
          placeholder="any"
          value={query.minBatteryPct}
          min={0}
          max={100}
          onChange={(minBatteryPct) => change({ minBatteryPct })}
        />
        <NumberField
          label="Battery to (%)"
          tooltip="Vehicles with more charge, and those that report none, are left out."
          placeholder="any"
          value={query.maxBatteryPct}
          min={0}
          max={100}
          onChange={(maxBatteryPct) => change({ maxBatteryPct })}
        />
      </InlineFieldRow>
      <AnswerRow {...props}>
        {format === 'table' && (
          <InlineField
            label="Live"
            tooltip="The panel follows the vehicles by itself, without refreshing: one stream for each fleet, shared by all viewers."
            labelWidth={LABEL_WIDTH}
          >
            <InlineSwitch
              id={liveId}
              value={query.live ?? false}
              onChange={(event) => change({ live: event.currentTarget.checked || undefined })}
            />
          </InlineField>
        )}
      </AnswerRow>
      {format === 'numeric' && <FieldsField {...props} fields={NUMBERS} unchosen="Age of the fix (s)" />}
    </>
  );
}
