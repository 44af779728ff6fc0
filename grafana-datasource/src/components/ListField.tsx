import { type SelectableValue } from '@grafana/data';
import { InlineField, MultiSelect } from '@grafana/ui';
import React, { useEffect, useId, useRef, useState } from 'react';

import { messageOf } from '../messages';

export const LABEL_WIDTH = 21;

const TYPING_PAUSE_MS = 250;

interface Props {
  label: string;
  tooltip: string;
  placeholder: string;
  values: string[] | undefined;
  onChange: (values: string[]) => void;
  /** A closed list of choices. */
  choices?: Array<SelectableValue<string>>;
  /** Loads suggestions when the menu opens. */
  load?: (prefix: string) => Promise<string[]>;
  /** When `load` brings this many, there may be more: typing then loads those that begin with what is typed. */
  pageSize?: number;
  /** Template variables to choose from, such as `$fleet`. */
  variables?: string[];
  required?: boolean;
}

/** A choice of several values, out of suggestions, template variables, or typed. */
export function ListField(props: Props) {
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
  // Answers may overtake each other; only that to the newest question counts.
  const question = useRef(0);
  const typing = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);

  useEffect(
    () => () => {
      question.current++;
      clearTimeout(typing.current);
    },
    []
  );

  const suggest = async (prefix: string) => {
    if (!load) {
      return;
    }
    const mine = ++question.current;
    setLoading(true);
    try {
      const suggestions = await load(prefix);
      if (mine === question.current) {
        setLoaded(suggestions);
        if (prefix === '') {
          setPartial(pageSize !== undefined && suggestions.length >= pageSize);
        }
        setError(undefined);
        setLoading(false);
      }
    } catch (err) {
      if (mine === question.current) {
        setError(`No suggestions: ${messageOf(err)}. Values can still be typed.`);
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
