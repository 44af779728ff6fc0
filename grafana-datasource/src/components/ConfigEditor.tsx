import {
  type DataSourcePluginOptionsEditorProps,
  onUpdateDatasourceJsonDataOptionChecked,
  onUpdateDatasourceSecureJsonDataOption,
  updateDatasourcePluginJsonDataOption,
  updateDatasourcePluginResetOption,
} from '@grafana/data';
import { Combobox, Field, FieldSet, Input, SecretInput, SecretTextArea, Switch } from '@grafana/ui';
import React, { useId } from 'react';

import { CONSISTENCIES, DEFAULTS, settingsProblems } from '../settings';
import { type SecureSettings, type Settings } from '../types';

type Props = DataSourcePluginOptionsEditorProps<Settings, SecureSettings>;

type NameOf<T> = { [K in keyof Settings]-?: NonNullable<Settings[K]> extends T ? K : never }[keyof Settings];

interface SettingProps<Name> {
  name: Name;
  label: string;
  description: string;
  placeholder?: string;
}

const WIDTH = 60;

export function ConfigEditor(props: Props) {
  const { options } = props;
  const { jsonData } = options;
  const prefix = useId();
  const problems = settingsProblems(jsonData);

  const set = <Name extends keyof Settings>(name: Name, value: Settings[Name]) =>
    updateDatasourcePluginJsonDataOption(props, name, value);

  const field = <Name extends keyof Settings>(
    { name, label, description }: SettingProps<Name>,
    input: React.JSX.Element
  ) => (
    <Field
      key={name}
      label={label}
      description={description}
      required={name === 'contactPoints'}
      invalid={problems[name] !== undefined}
      error={problems[name]}
    >
      {input}
    </Field>
  );

  const placeholderOf = (name: keyof Settings) =>
    name in DEFAULTS ? String(DEFAULTS[name as keyof typeof DEFAULTS]) : '';

  // Functions and not components: a component made anew with each render would lose the focus at each key.
  const text = (setting: SettingProps<NameOf<string>>) =>
    field(
      setting,
      <Input
        id={`${prefix}-${setting.name}`}
        width={WIDTH}
        value={jsonData[setting.name] ?? ''}
        placeholder={setting.placeholder ?? placeholderOf(setting.name)}
        onChange={(event) => set(setting.name, event.currentTarget.value || undefined)}
      />
    );

  const number = (setting: SettingProps<NameOf<number>>) =>
    field(
      setting,
      <Input
        id={`${prefix}-${setting.name}`}
        type="number"
        width={WIDTH}
        value={jsonData[setting.name] ?? ''}
        placeholder={placeholderOf(setting.name)}
        onChange={(event) =>
          set(setting.name, event.currentTarget.value === '' ? undefined : Number(event.currentTarget.value))
        }
      />
    );

  const toggle = (setting: SettingProps<NameOf<boolean>>, byDefault = false) =>
    field(
      setting,
      <Switch
        id={`${prefix}-${setting.name}`}
        value={jsonData[setting.name] ?? byDefault}
        onChange={onUpdateDatasourceJsonDataOptionChecked(props, setting.name)}
      />
    );

  const pem = ({ name, label, description, placeholder }: SettingProps<keyof SecureSettings & string>) => (
    <Field label={label} description={description}>
      <SecretTextArea
        id={`${prefix}-${name}`}
        cols={WIDTH}
        rows={6}
        isConfigured={Boolean(options.secureJsonFields?.[name])}
        placeholder={placeholder}
        value={options.secureJsonData?.[name] ?? ''}
        onReset={() => updateDatasourcePluginResetOption(props, name)}
        onChange={onUpdateDatasourceSecureJsonDataOption(props, name)}
      />
    </Field>
  );

  return (
    <>
      <FieldSet label="Connection">
        {text({
          name: 'contactPoints',
          label: 'Contact points',
          description: 'Nodes to meet the cluster by, separated by commas. The others are found through them.',
          placeholder: '10.0.0.1, 10.0.0.2:9042',
        })}
        {text({
          name: 'localDatacenter',
          label: 'Local data centre',
          description:
            'Nodes of this data centre are asked first, the others only when none of it can be reached. Empty: that of the first contact point that answers.',
          placeholder: 'dc1',
        })}
        {text({ name: 'keyspace', label: 'Keyspace', description: 'The keyspace that holds the fleet tables.' })}
        {field(
          {
            name: 'consistency',
            label: 'Consistency',
            description:
              'How many replicas must answer a read: more are safer, slower, and miss less when replicas differ.',
          },
          <Combobox
            id={`${prefix}-consistency`}
            width={WIDTH}
            value={jsonData.consistency ?? DEFAULTS.consistency}
            options={CONSISTENCIES.map((value) => ({ value }))}
            onChange={({ value }) => set('consistency', value)}
          />
        )}
      </FieldSet>

      <FieldSet label="Authentication">
        {text({
          name: 'username',
          label: 'User name',
          description: 'A role that may SELECT in the keyspace. Empty: the cluster is met without a password.',
        })}
        <Field label="Password" description="Kept encrypted by Grafana; it never comes back to the browser.">
          <SecretInput
            id={`${prefix}-password`}
            width={WIDTH}
            isConfigured={Boolean(options.secureJsonFields?.password)}
            value={options.secureJsonData?.password ?? ''}
            onReset={() => updateDatasourcePluginResetOption(props, 'password')}
            onChange={onUpdateDatasourceSecureJsonDataOption(props, 'password')}
          />
        </Field>
      </FieldSet>

      <FieldSet label="TLS">
        {toggle({ name: 'tls', label: 'Use TLS', description: 'Encrypts the connections to the cluster.' })}
        {jsonData.tls && (
          <>
            {text({
              name: 'tlsServerName',
              label: 'Server name',
              description:
                'The name that the certificates of the nodes must bear. Empty: the host that is connected to.',
            })}
            {toggle({
              name: 'tlsSkipVerify',
              label: 'Skip verification',
              description: 'Takes any certificate, so that anyone on the way can pose as the cluster. For tests only.',
            })}
            {pem({
              name: 'tlsCACert',
              label: 'CA certificate',
              description:
                'The authority that signed the certificates of the nodes, as PEM. Empty: those of the system.',
              placeholder: '-----BEGIN CERTIFICATE-----',
            })}
            {pem({
              name: 'tlsClientCert',
              label: 'Client certificate',
              description: 'As PEM, where the cluster asks clients for one. It needs the client key too.',
              placeholder: '-----BEGIN CERTIFICATE-----',
            })}
            {pem({
              name: 'tlsClientKey',
              label: 'Client key',
              description: 'The private key of the client certificate, as PEM.',
              placeholder: '-----BEGIN PRIVATE KEY-----',
            })}
          </>
        )}
      </FieldSet>

      <FieldSet label="Limits">
        {text({ name: 'queryTimeout', label: 'Query timeout', description: 'A query that takes longer fails.' })}
        {text({
          name: 'connectTimeout',
          label: 'Connect timeout',
          description: 'How long a node may take to accept a connection.',
        })}
        {number({
          name: 'maxConcurrency',
          label: 'Partitions at once',
          description: 'How many partitions are read side by side. More are faster and press the cluster harder.',
        })}
        {number({
          name: 'maxPartitions',
          label: 'Partitions per query',
          description:
            'A query that would need more reads (vehicles × days, fleets × days × severities) is cut, with a notice.',
        })}
        {number({
          name: 'maxRows',
          label: 'Rows per query',
          description: 'A query that gives more rows is cut, with a notice.',
        })}
        {number({
          name: 'maxRowsRead',
          label: 'Rows read per query',
          description: 'How many rows one query may read before they are thinned to what a panel can draw.',
        })}
      </FieldSet>

      <FieldSet label="Cache">
        {text({
          name: 'latestCache',
          label: 'Newest positions',
          description:
            'How long newest positions are shared by all viewers before they are read again. 0s turns it off.',
        })}
        {text({
          name: 'closedDayCache',
          label: 'Closed days',
          description:
            'How long the history of days that are over is kept. Late records appear after this time. 0s turns it off.',
        })}
        {number({
          name: 'cacheMegabytes',
          label: 'Memory (MB)',
          description: 'The size of the cache; beyond it, what was not asked for longest is dropped.',
        })}
      </FieldSet>

      <FieldSet label="Vehicle states">
        {text({
          name: 'staleAfter',
          label: 'Stale after',
          description: 'A vehicle whose newest fix is older than this is stale.',
        })}
        {text({
          name: 'offlineAfter',
          label: 'Offline after',
          description: 'A vehicle whose newest fix is older than this is offline.',
        })}
        {number({
          name: 'movingAboveKmh',
          label: 'Moving above (km/h)',
          description: 'A vehicle that is faster than this is moving, any other that sends is idle.',
        })}
      </FieldSet>

      <FieldSet label="Live">
        {text({
          name: 'liveInterval',
          label: 'Live interval',
          description:
            'The least time between two updates of a live map. Shorter means more reads of each watched fleet.',
        })}
      </FieldSet>

      <FieldSet label="Permissions">
        {text({
          name: 'allowedFleets',
          label: 'Allowed fleets',
          description: 'Only these fleets, separated by commas, can be seen through this data source. Empty: all.',
          placeholder: 'fleet-001, fleet-002',
        })}
        {toggle(
          {
            name: 'allowRaw',
            label: 'Allow raw CQL',
            description: 'Editors may write SELECT statements of their own.',
          },
          DEFAULTS.allowRaw
        )}
        {toggle({
          name: 'allowFiltering',
          label: 'Allow ALLOW FILTERING',
          description: 'Raw CQL may scan whole tables, which can slow the cluster down for everyone.',
        })}
      </FieldSet>
    </>
  );
}
