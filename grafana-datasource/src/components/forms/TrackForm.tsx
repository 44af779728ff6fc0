import { InlineFieldRow } from '@grafana/ui';
import React from 'react';

import { formatOf } from '../../queryTypes';
import { ResponseRow, DevicesField, FieldsField, type QueryFormProps } from './queryFields';

const FIELDS: Array<[string, string]> = [
  ['speed_kmh', 'Speed (km/h)'],
  ['battery_pct', 'Battery (%)'],
  ['temp_c', 'Temperature (°C)'],
  ['heading_deg', 'Heading (°)'],
  ['lat', 'Latitude'],
  ['lon', 'Longitude'],
];

export function TrackForm(props: QueryFormProps) {
  return (
    <>
      <InlineFieldRow>
        <DevicesField {...props} required />
        {formatOf(props.query) === 'time_series' && <FieldsField {...props} fields={FIELDS} unchosen="Speed (km/h)" />}
      </InlineFieldRow>
      <ResponseRow {...props} />
    </>
  );
}
