import { InlineField, RadioButtonGroup } from '@grafana/ui';
import React from 'react';

import { LABEL_WIDTH } from './ListField';

interface Props<T extends string> {
  label: string;
  tooltip: string;
  value: T;
  choices: Array<{ value: T; label: string; description?: string }>;
  onChange: (value: T) => void;
}

/** Selects one of a few choices, which are all visible. */
export function ChoiceField<T extends string>({ label, tooltip, value, choices, onChange }: Props<T>) {
  return (
    <InlineField label={label} tooltip={tooltip} labelWidth={LABEL_WIDTH}>
      <RadioButtonGroup aria-label={label} options={choices} value={value} onChange={onChange} />
    </InlineField>
  );
}
