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

  // Functions, not components: a component that is created in each render would lose the focus at each key.
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
          description: 'Nodes of the cluster to connect to first, separated by commas. The driver finds the others.',
          placeholder: '10.0.0.1, 10.0.0.2:9042',
        })}
        {text({
          name: 'localDatacenter',
          label: 'Local data center',
          description:
            'Queries go to nodes of this data center, and to others only if none of them is reachable. Empty: the data center of the first contact point that answers.',
          placeholder: 'dc1',
        })}
        {text({ name: 'keyspace', label: 'Keyspace', description: 'The keyspace that holds the fleet tables.' })}
        {field(
          {
            name: 'consistency',
            label: 'Consistency',
            description:
              'How many replicas must answer a read. More replicas are slower, and miss less when replicas differ.',
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
          description: 'A role with SELECT on the keyspace. Empty: connect without a password.',
        })}
        <Field label="Password" description="Grafana encrypts it and never sends it back to the browser.">
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
        {toggle({ name: 'tls', label: 'Use TLS', description: 'Encrypt the connections to the cluster.' })}
        {jsonData.tls && (
          <>
            {text({
              name: 'tlsServerName',
              label: 'Server name',
              description: 'The name in the certificates of the nodes. Empty: the host name of the connection.',
            })}
            {toggle({
              name: 'tlsSkipVerify',
              label: 'Skip verification',
              description:
                'Accept any certificate. An attacker on the network can then impersonate the cluster. For tests only.',
            })}
            {pem({
              name: 'tlsCACert',
              label: 'CA certificate',
              description:
                'The authority that signed the certificates of the nodes, as PEM. Empty: the authorities of the system.',
              placeholder: '-----BEGIN CERTIFICATE-----',
            })}
            {pem({
              name: 'tlsClientCert',
              label: 'Client certificate',
              description: 'PEM, for clusters that require client certificates. Needs the client key.',
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
          description: 'How many partitions are read in parallel. More is faster and puts more load on the cluster.',
        })}
        {number({
          name: 'maxPartitions',
          label: 'Partitions per query',
          description:
            'A query that needs more partitions (vehicles × days, fleets × days × severities) is truncated, with a notice.',
        })}
        {number({
          name: 'maxRows',
          label: 'Rows per query',
          description: 'A query that returns more rows is truncated, with a notice.',
        })}
        {number({
          name: 'maxRowsRead',
          label: 'Rows read per query',
          description: 'How many rows one query may read before they are downsampled to what a panel can draw.',
        })}
        {number({
          name: 'queryMegabytes',
          label: 'Query memory (MB)',
          description:
            'Memory for the rows and frames of all requests in progress. One request gets at most half of it. Beyond that, raw CQL is truncated with a notice, and other queries fail.',
        })}
      </FieldSet>

      <FieldSet label="Cache">
        {text({
          name: 'latestCache',
          label: 'Latest positions',
          description: 'How long all viewers share the latest positions before they are read again. 0s turns it off.',
        })}
        {text({
          name: 'closedDayCache',
          label: 'Closed days',
          description:
            'How long the history of past days is cached. Late records appear after this time. 0s turns it off.',
        })}
        {number({
          name: 'cacheMegabytes',
          label: 'Memory (MB)',
          description: 'The size of the cache. The least recently used entries are evicted first.',
        })}
      </FieldSet>

      <FieldSet label="Vehicle states">
        {text({
          name: 'staleAfter',
          label: 'Stale after',
          description: 'A vehicle whose latest record is older than this is stale.',
        })}
        {text({
          name: 'offlineAfter',
          label: 'Offline after',
          description: 'A vehicle whose latest record is older than this is offline.',
        })}
        {number({
          name: 'movingAboveKmh',
          label: 'Moving above (km/h)',
          description: 'A vehicle at this speed or above is moving. Below it, the vehicle is stopped.',
        })}
      </FieldSet>

      <FieldSet label="Live">
        {text({
          name: 'liveInterval',
          label: 'Live interval',
          description:
            'The minimum time between two updates of a live map. A shorter interval reads each watched fleet more often.',
        })}
      </FieldSet>

      <FieldSet label="Permissions">
        {text({
          name: 'allowedFleets',
          label: 'Allowed fleets',
          description: 'The only fleets that this data source may read, separated by commas. Empty: all fleets.',
          placeholder: 'fleet-001, fleet-002',
        })}
        {toggle(
          {
            name: 'allowRaw',
            label: 'Allow raw CQL',
            description: 'Editors may write SELECT statements.',
          },
          DEFAULTS.allowRaw
        )}
        {toggle({
          name: 'allowFiltering',
          label: 'Allow ALLOW FILTERING',
          description: 'Raw CQL may scan whole tables, which can slow down the cluster.',
        })}
      </FieldSet>
    </>
  );
}
