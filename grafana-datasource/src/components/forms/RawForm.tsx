import { Alert, Button, CodeEditor, type MonacoEditor, type Monaco, Stack, Text } from '@grafana/ui';
import React, { useCallback, useEffect, useRef, useState } from 'react';

import { completions, EXAMPLE, MACROS } from '../../cql';
import { messageOf } from '../../messages';
import { type Schema } from '../../types';
import { ResponseRow, type QueryFormProps } from './queryFields';

export function RawForm(props: QueryFormProps) {
  const { datasource, query, change } = props;
  const cql = query.cql ?? '';

  const run = (text: string) => change({ cql: text });
  const runIfChanged = (text: string) => {
    if (text !== cql) {
      run(text);
    }
  };
  // Monaco keeps its first function, which must run the latest query.
  const latestRun = useRef(run);
  useEffect(() => {
    latestRun.current = run;
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
      run: () => latestRun.current(editor.getValue()),
    });
  };

  return (
    <Stack direction="column" gap={1}>
      {!datasource.allowRaw && (
        <Alert severity="warning" title="Raw CQL is turned off for this data source">
          The query fails until an administrator allows raw CQL in the settings of the data source.
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
        Write a single SELECT that names the whole partition key. Ctrl+Enter runs it.
        {MACROS.map(({ name, meaning }) => (
          <React.Fragment key={name}>
            {' '}
            <code>{name}</code> {meaning}.
          </React.Fragment>
        ))}
        {schemaError !== undefined && ` Completion of tables and columns is not available: ${schemaError}.`}
      </Text>
      {cql.trim() === '' && (
        <div>
          <Button variant="secondary" size="sm" onClick={() => change({ cql: EXAMPLE })}>
            Start from an example
          </Button>
        </div>
      )}
      <ResponseRow {...props} />
    </Stack>
  );
}
