import { Alert, Button, CodeEditor, type MonacoEditor, type Monaco, Stack, Text } from '@grafana/ui';
import React, { useCallback, useEffect, useRef, useState } from 'react';

import { completions, EXAMPLE, MACROS } from '../../cql';
import { messageOf } from '../../messages';
import { type Schema } from '../../types';
import { AnswerRow, type QueryFormProps } from './queryFields';

export function RawForm(props: QueryFormProps) {
  const { datasource, query, change } = props;
  const cql = query.cql ?? '';

  const run = (text: string) => change({ cql: text });
  const runIfChanged = (text: string) => {
    if (text !== cql) {
      run(text);
    }
  };
  // Monaco keeps the function that it is given at first, which has to find the newest query.
  const newestRun = useRef(run);
  useEffect(() => {
    newestRun.current = run;
  });

  const schema = useRef<Schema | undefined>(undefined);
  const [schemaError, setSchemaError] = useState<string>();
  useEffect(() => {
    let shown = true;
    datasource.schema().then(
      (loaded) => {
        schema.current = loaded;
      },
      (error) => shown && setSchemaError(messageOf(error))
    );
    return () => {
      shown = false;
    };
  }, [datasource]);
  const getSuggestions = useCallback(() => completions(schema.current), []);

  const onEditorDidMount = (editor: MonacoEditor, monaco: Monaco) => {
    editor.updateOptions({ ariaLabel: 'CQL' });
    editor.addAction({
      id: 'run-cql',
      label: 'Run query',
      keybindings: [monaco.KeyMod.CtrlCmd | monaco.KeyCode.Enter],
      run: () => newestRun.current(editor.getValue()),
    });
  };

  return (
    <Stack direction="column" gap={1}>
      {!datasource.allowRaw && (
        <Alert severity="warning" title="Raw CQL is turned off for this data source">
          The query is refused until an administrator allows raw CQL in the settings of the data source.
        </Alert>
      )}
      <CodeEditor
        language="sql"
        height={160}
        value={cql}
        showLineNumbers
        showMiniMap={false}
        onBlur={runIfChanged}
        onSave={run}
        onEditorDidMount={onEditorDidMount}
        getSuggestions={getSuggestions}
      />
      <Text variant="bodySmall" color="secondary">
        A single SELECT that names the whole partition key; Ctrl+Enter runs it.
        {MACROS.map(({ name, meaning }) => (
          <React.Fragment key={name}>
            {' '}
            <code>{name}</code> {meaning}.
          </React.Fragment>
        ))}
        {schemaError !== undefined && ` Tables and columns can't be completed: ${schemaError}.`}
      </Text>
      {cql.trim() === '' && (
        <div>
          <Button variant="secondary" size="sm" onClick={() => change({ cql: EXAMPLE })}>
            Start from an example
          </Button>
        </div>
      )}
      <AnswerRow {...props} />
    </Stack>
  );
}
