import { InlineFieldRow } from '@grafana/ui';
import React from 'react';

import { ResponseRow, DevicesField, FleetsField, type QueryFormProps } from './queryFields';

/** Selects vehicles, fleets or geofences from the registry, which does not depend on the time range. */
export function RegistryForm(props: QueryFormProps) {
  return (
    <>
      <InlineFieldRow>
        <FleetsField {...props} />
        {props.query.queryType === 'devices' && <DevicesField {...props} />}
      </InlineFieldRow>
      <ResponseRow {...props} />
    </>
  );
}
