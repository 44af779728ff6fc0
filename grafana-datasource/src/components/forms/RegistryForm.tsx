import { InlineFieldRow } from '@grafana/ui';
import React from 'react';

import { DevicesField, FleetsField, FormatField, LimitField, type QueryFormProps } from './queryFields';

/** Vehicles, fleets and geofences: what is registered, whatever the time range. */
export function RegistryForm(props: QueryFormProps) {
  return (
    <>
      <InlineFieldRow>
        <FleetsField {...props} />
        {props.query.queryType === 'devices' && <DevicesField {...props} />}
      </InlineFieldRow>
      <InlineFieldRow>
        <FormatField {...props} />
        <LimitField {...props} />
      </InlineFieldRow>
    </>
  );
}
