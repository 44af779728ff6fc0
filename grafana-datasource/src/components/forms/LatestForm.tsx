import { InlineField, InlineFieldRow, InlineSwitch } from '@grafana/ui';
import React, { useId } from 'react';

import { formatOf } from '../../queryTypes';
import { type VehicleState } from '../../types';
import { LABEL_WIDTH } from '../ListField';
import { NumberField } from '../NumberField';
import { FieldsField, FleetsAndDevicesRow, QueryListField, type QueryFormProps, ResponseRow } from './queryFields';

const STATES: Array<{ value: VehicleState; label: string; description: string }> = [
  { value: 'moving', label: 'Moving', description: 'At or above the speed threshold of the data source' },
  { value: 'stopped', label: 'Stopped', description: 'Sends, but does not move' },
  { value: 'stale', label: 'Stale', description: 'Has not sent for a while' },
  { value: 'offline', label: 'Offline', description: 'Has not sent for a long time' },
];

const NUMBERS: Array<[string, string]> = [
  ['age_s', 'Age (s)'],
  ['speed_kmh', 'Speed (km/h)'],
  ['battery_pct', 'Battery (%)'],
  ['temp_c', 'Temperature (°C)'],
];

interface Bound {
  name: 'minSpeedKmh' | 'maxSpeedKmh' | 'minBatteryPct' | 'maxBatteryPct';
  label: string;
  tooltip: string;
  max?: number;
}

const BOUNDS: Bound[][] = [
  [
    { name: 'minSpeedKmh', label: 'Speed from (km/h)', tooltip: 'Excludes slower vehicles and unknown speeds.' },
    { name: 'maxSpeedKmh', label: 'Speed to (km/h)', tooltip: 'Excludes faster vehicles and unknown speeds.' },
  ],
  [
    { name: 'minBatteryPct', label: 'Battery from (%)', tooltip: 'Excludes lower and unknown charges.', max: 100 },
    { name: 'maxBatteryPct', label: 'Battery to (%)', tooltip: 'Excludes higher and unknown charges.', max: 100 },
  ],
];

export function LatestForm(props: QueryFormProps) {
  const { datasource, query, change } = props;
  const liveId = useId();
  const format = formatOf(query);

  return (
    <>
      <FleetsAndDevicesRow {...props} />
      <InlineFieldRow>
        <QueryListField
          {...props}
          name="states"
          label="States"
          tooltip="Only vehicles in these states."
          placeholder="All states"
          choices={STATES}
        />
        <QueryListField
          {...props}
          name="zones"
          label="Geofences"
          tooltip="Only vehicles whose latest position is inside these geofences."
          placeholder="All geofences"
          load={() => datasource.zoneSuggestions(query.fleets)}
        />
      </InlineFieldRow>
      {BOUNDS.map((row) => (
        <InlineFieldRow key={row[0].name}>
          {row.map(({ name, ...bound }) => (
            <NumberField
              key={name}
              {...bound}
              placeholder="any"
              value={query[name]}
              min={0}
              onChange={(value) => change({ [name]: value })}
            />
          ))}
        </InlineFieldRow>
      ))}
      <ResponseRow {...props}>
        {format === 'table' && (
          <InlineField
            label="Live"
            tooltip="Updates the panel without a refresh: one stream per fleet, shared by all viewers."
            labelWidth={LABEL_WIDTH}
          >
            <InlineSwitch
              id={liveId}
              value={query.live ?? false}
              onChange={(event) => change({ live: event.currentTarget.checked || undefined })}
            />
          </InlineField>
        )}
      </ResponseRow>
      {format === 'numeric' && <FieldsField {...props} fields={NUMBERS} unchosen="Age (s)" />}
    </>
  );
}
