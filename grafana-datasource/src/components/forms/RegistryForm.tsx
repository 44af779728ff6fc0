import { InlineFieldRow } from '@grafana/ui';
import React from 'react';

import { AnswerRow, DevicesField, FleetsField, type QueryFormProps } from './queryFields';

/** Vehicles, fleets and geofences: what is registered, whatever the time range. */
export function RegistryForm(props: QueryFormProps) {
  return (
    <>
      <InlineFieldRow>
        <FleetsField {...props} />
        {props.query.queryType === 'devices' && <DevicesField {...props} />}
      </InlineFieldRow>
      <AnswerRow {...props} />
    </>
  );
}
