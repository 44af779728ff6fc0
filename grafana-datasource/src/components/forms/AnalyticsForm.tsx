import { InlineFieldRow } from '@grafana/ui';
import React from 'react';

import { formatOf } from '../../queryTypes';
import { ResponseRow, FieldsField, FleetsField, type QueryFormProps } from './queryFields';

const FIELDS: Array<[string, string]> = [
  ['total_distance_km', 'Distance (km)'],
  ['avg_speed_kmh', 'Average speed (km/h)'],
  ['alerts_count', 'Alerts'],
  ['active_devices_count', 'Active vehicles'],
];

export function AnalyticsForm(props: QueryFormProps) {
  return (
    <>
      <InlineFieldRow>
        <FleetsField {...props} />
        {formatOf(props.query) === 'time_series' && (
          <FieldsField {...props} fields={FIELDS} unchosen="All statistics" />
        )}
      </InlineFieldRow>
      <ResponseRow {...props} />
    </>
  );
}
