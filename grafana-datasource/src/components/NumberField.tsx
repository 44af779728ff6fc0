import { InlineField, Input } from '@grafana/ui';
import React, { useId, useState } from 'react';

import { LABEL_WIDTH } from './ListField';

interface Props {
  label: string;
  tooltip: string;
  placeholder?: string;
  value: number | undefined;
  min: number;
  max?: number;
  integer?: boolean;
  onChange: (value: number | undefined) => void;
}

/** An optional number. Leaving the field or pressing Enter applies it. */
export function NumberField({ label, tooltip, placeholder, value, min, max, integer, onChange }: Props) {
  const id = useId();
  const [error, setError] = useState<string>();

  const apply = (input: HTMLInputElement) => {
    const number = input.value === '' ? undefined : Number(input.value);
    if (input.validity.badInput || (number !== undefined && !isWithin(number, min, max, integer))) {
      setError(rangeMessage(min, max, integer));
      return;
    }
    setError(undefined);
    if (number !== value) {
      onChange(number);
    }
  };

  return (
    <InlineField label={label} tooltip={tooltip} labelWidth={LABEL_WIDTH} invalid={error !== undefined} error={error}>
      <Input
        // A new value from outside, such as from another query, resets the field.
        key={value}
        id={id}
        type="number"
        min={min}
        max={max}
        step={integer ? 1 : 'any'}
        width={16}
        placeholder={placeholder}
        defaultValue={value}
        onBlur={(event) => apply(event.currentTarget)}
        onKeyDown={(event) => {
          if (event.key === 'Enter') {
            apply(event.currentTarget);
          }
        }}
      />
    </InlineField>
  );
}

function isWithin(number: number, min: number, max = Infinity, integer = false): boolean {
  return number >= min && number <= max && (!integer || Number.isInteger(number));
}

function rangeMessage(min: number, max: number | undefined, integer = false): string {
  const kind = integer ? 'A whole number' : 'A number';
  return max === undefined ? `${kind}, ${min} or more` : `${kind} from ${min} to ${max}`;
}
