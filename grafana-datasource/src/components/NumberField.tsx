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

/** A number that may be absent. It is taken when the field is left or Enter is pressed. */
export function NumberField({ label, tooltip, placeholder, value, min, max, integer, onChange }: Props) {
  const id = useId();
  const [error, setError] = useState<string>();

  const take = (input: HTMLInputElement) => {
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
        // A value that comes from elsewhere, such as another query, starts the field anew.
        key={value}
        id={id}
        type="number"
        min={min}
        max={max}
        step={integer ? 1 : 'any'}
        width={16}
        placeholder={placeholder}
        defaultValue={value}
        onBlur={(event) => take(event.currentTarget)}
        onKeyDown={(event) => {
          if (event.key === 'Enter') {
            take(event.currentTarget);
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
