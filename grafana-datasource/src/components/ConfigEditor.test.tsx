import { type DataSourceSettings } from '@grafana/data';
import { render, screen } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import React, { useState } from 'react';

import { type SecureSettings, type Settings } from '../types';
import { ConfigEditor } from './ConfigEditor';

type Options = DataSourceSettings<Settings, SecureSettings>;

function setup(jsonData: Settings = { contactPoints: '127.0.0.1' }, secureJsonFields: Record<string, boolean> = {}) {
  const onOptionsChange = jest.fn<void, [Options]>();
  const Page = () => {
    const [options, setOptions] = useState(
      Object.freeze({ jsonData: Object.freeze(jsonData), secureJsonFields: Object.freeze(secureJsonFields) }) as Options
    );
    return (
      <ConfigEditor
        options={options}
        onOptionsChange={(next) => {
          onOptionsChange(next);
          setOptions(next);
        }}
      />
    );
  };
  render(<Page />);
  return { user: userEvent.setup(), last: () => onOptionsChange.mock.lastCall![0] };
}

const input = (label: string | RegExp) => screen.getByLabelText(label);

it('writes typed values to the settings, and keeps the others', async () => {
  const { user, last } = setup({ contactPoints: '127.0.0.1', keyspace: 'fleet_iot' });
  await user.type(input(/^Local data center/), 'dc1');
  await user.type(input(/^User name/), 'grafana');
  await user.type(input(/^Rows per query/), '5000');
  expect(last().jsonData).toEqual({
    contactPoints: '127.0.0.1',
    keyspace: 'fleet_iot',
    localDatacenter: 'dc1',
    username: 'grafana',
    maxRows: 5000,
  });
});

it('returns to the default when a setting is cleared', async () => {
  const { user, last } = setup({ contactPoints: '127.0.0.1', queryTimeout: '30s', maxRows: 5000 });
  await user.clear(input(/^Query timeout/));
  await user.clear(input(/^Rows per query/));
  expect(last().jsonData.queryTimeout).toBeUndefined();
  expect(last().jsonData.maxRows).toBeUndefined();
});

it('shows the defaults as placeholders', () => {
  setup({});
  expect(input(/^Keyspace/)).toHaveAttribute('placeholder', 'fleet_iot');
  expect(input(/^Query timeout/)).toHaveAttribute('placeholder', '10s');
  expect(input(/^Partitions per query/)).toHaveAttribute('placeholder', '2000');
  expect(input(/^Moving above/)).toHaveAttribute('placeholder', '3');
  expect(input(/^Allow raw CQL/)).toBeChecked();
  expect(input(/^Allow ALLOW FILTERING/)).not.toBeChecked();
});

it('selects a consistency', async () => {
  const { user, last } = setup();
  expect(input(/^Consistency/)).toHaveValue('LOCAL_ONE');
  await user.click(input(/^Consistency/));
  await user.click(await screen.findByRole('option', { name: 'LOCAL_QUORUM' }));
  expect(last().jsonData.consistency).toBe('LOCAL_QUORUM');
});

it('shows certificates only with TLS', async () => {
  const { user, last } = setup();
  expect(screen.queryByLabelText(/^CA certificate/)).not.toBeInTheDocument();
  await user.click(input(/^Use TLS/));
  expect(last().jsonData.tls).toBe(true);
  await user.type(input(/^CA certificate/), '-----BEGIN');
  expect(last().secureJsonData).toEqual({ tlsCACert: '-----BEGIN' });
});

it('forbids raw CQL', async () => {
  const { user, last } = setup();
  await user.click(input(/^Allow raw CQL/));
  expect(last().jsonData.allowRaw).toBe(false);
});

it('stores the password as a secret', async () => {
  const { user, last } = setup();
  await user.type(input(/^Password/), 'pa$$');
  expect(last().secureJsonData).toEqual({ password: 'pa$$' });
  expect(last().jsonData).not.toHaveProperty('password');
});

it('shows that secrets are set without showing them, and resets one of them', async () => {
  const { user, last } = setup({ contactPoints: '127.0.0.1', tls: true }, { password: true, tlsClientKey: true });
  expect(input(/^Password/)).toBeDisabled();
  expect(input(/^Client key/)).toBeDisabled();
  expect(input(/^Client certificate/)).toBeEnabled();

  await user.click(screen.getAllByRole('button', { name: 'Reset' })[0]);
  expect(last().secureJsonFields).toEqual({ password: false, tlsClientKey: true });
  expect(last().secureJsonData).toEqual({ password: '' });
  expect(input(/^Password/)).toBeEnabled();
});

it('shows an error beside a setting until it is valid', async () => {
  const { user } = setup({ contactPoints: '127.0.0.1', liveInterval: '2' });
  const wrong = '"2" is not a duration; write it like 500ms, 10s or 1m30s';
  expect(screen.getByText(wrong)).toBeInTheDocument();
  expect(screen.getAllByRole('alert')).toHaveLength(1);
  await user.type(input(/^Live interval/), 's');
  expect(screen.queryByRole('alert')).not.toBeInTheDocument();
});

it('requires a contact point', async () => {
  const { user } = setup({});
  expect(screen.getByText(/Enter at least one node/)).toBeInTheDocument();
  await user.type(input(/^Contact points/), 'cassandra-1');
  expect(screen.queryByRole('alert')).not.toBeInTheDocument();
});
