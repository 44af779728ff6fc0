import { type SelectableValue } from '@grafana/data';
import { InlineField, MultiSelect } from '@grafana/ui';
import React, { useEffect, useId, useRef, useState } from 'react';

import { messageOf } from '../messages';

export const LABEL_WIDTH = 21;

const TYPING_PAUSE_MS = 250;

export interface ListFieldProps {
  label: string;
  tooltip: string;
  placeholder: string;
  values: string[] | undefined;
  onChange: (values: string[]) => void;
  /** A closed list of choices. */
  choices?: Array<SelectableValue<string>>;
  /** Loads suggestions when the menu opens. */
  load?: (prefix: string) => Promise<string[]>;
  /** If `load` returns this many values there may be more, and typing loads the values with that prefix. */
  pageSize?: number;
  /** Template variables to choose from, such as `$fleet`. */
  variables?: string[];
  required?: boolean;
}

/** Selects several values: suggestions, template variables, or typed values. */
export function ListField(props: ListFieldProps) {
  const {
    label,
    tooltip,
    placeholder,
    values,
    onChange,
    choices = [],
    load,
    pageSize,
    variables = [],
    required,
  } = props;
  const inputId = useId();
  const [loaded, setLoaded] = useState<string[]>([]);
  const [partial, setPartial] = useState(false);
  const [loading, setLoading] = useState(false);
  const [error, setError] = useState<string>();
  // Responses may arrive out of order. Only the response to the latest request counts.
  const request = useRef(0);
  const typing = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);

  useEffect(
    () => () => {
      request.current++;
      clearTimeout(typing.current);
    },
    []
  );

  const suggest = async (prefix: string) => {
    if (!load) {
      return;
    }
    const mine = ++request.current;
    setLoading(true);
    try {
      const suggestions = await load(prefix);
      if (mine === request.current) {
        setLoaded(suggestions);
        if (prefix === '') {
          setPartial(pageSize !== undefined && suggestions.length >= pageSize);
        }
        setError(undefined);
        setLoading(false);
      }
    } catch (err) {
      if (mine === request.current) {
        setError(`No suggestions: ${messageOf(err)}. You can still type values.`);
        setLoading(false);
      }
    }
  };

  const onInputChange = (text: string, { action }: { action: string }) => {
    if (action === 'input-change' && partial) {
      clearTimeout(typing.current);
      typing.current = setTimeout(() => suggest(text), TYPING_PAUSE_MS);
    }
  };

  const known = new Set(choices.map(({ value }) => value));
  const options: Array<SelectableValue<string>> = [
    ...choices,
    ...[...variables, ...loaded].filter((value) => !known.has(value)).map((value) => ({ value, label: value })),
  ];
  const selected = (values ?? []).map(
    (value) => choices.find((choice) => choice.value === value) ?? { value, label: value }
  );

  return (
    <InlineField
      label={label}
      tooltip={tooltip}
      labelWidth={LABEL_WIDTH}
      required={required}
      invalid={error !== undefined}
      error={error}
      grow
    >
      <MultiSelect
        inputId={inputId}
        aria-label={label}
        placeholder={placeholder}
        value={selected}
        options={options}
        isLoading={loading}
        allowCustomValue
        allowCreateWhileLoading
        isClearable
        closeMenuOnSelect={false}
        onOpenMenu={() => suggest('')}
        onInputChange={onInputChange}
        onChange={(items) => onChange(items.flatMap(({ value }) => value?.trim() || []))}
      />
    </InlineField>
  );
}
