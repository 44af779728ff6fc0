import { getTemplateSrv } from '@grafana/runtime';
import { render, screen } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import React from 'react';

import { fleetDataSource } from '../testing/datasource';
import { templateService } from '../testing/templates';
import { type FleetQuery } from '../types';
import { VariableQueryEditor } from './VariableQueryEditor';

jest.mock('@grafana/runtime', () => ({
  ...jest.requireActual('@grafana/runtime'),
  getTemplateSrv: jest.fn(),
}));

function setup(query: unknown) {
  jest.mocked(getTemplateSrv).mockReturnValue(templateService({ name: 'fleet', value: 'fleet-001' }));
  const onChange = jest.fn();
  const onRunQuery = jest.fn();
  const { datasource } = fleetDataSource({}, { fleets: ['fleet-001'] });
  render(
    <VariableQueryEditor
      datasource={datasource}
      query={query as FleetQuery}
      onChange={onChange}
      onRunQuery={onRunQuery}
    />
  );
  return { onChange, onRunQuery, user: userEvent.setup() };
}

it.each([[''], [{}]])('starts a new variable, %j, as the list of fleets', (query) => {
  setup(query);
  expect(screen.getByLabelText('Values')).toHaveValue('Fleets');
  expect(screen.queryByLabelText('Fleets')).not.toBeInTheDocument();
});

it('selects the values of the variable', async () => {
  const { user, onChange, onRunQuery } = setup('');
  await user.click(screen.getByLabelText('Values'));
  await user.click(await screen.findByRole('option', { name: /^Geofences/ }));
  expect(onChange).toHaveBeenCalledWith({ refId: 'variable', queryType: 'variable', variable: 'zones' });
  expect(onRunQuery).toHaveBeenCalledTimes(1);
});

it('lists the vehicles of the fleets of another variable', async () => {
  const { user, onChange } = setup({ refId: 'V', queryType: 'variable', variable: 'devices' });
  await user.click(screen.getByLabelText('Fleets'));
  await user.click(await screen.findByRole('option', { name: '$fleet' }));
  expect(onChange).toHaveBeenCalledWith({
    refId: 'V',
    queryType: 'variable',
    variable: 'devices',
    fleets: ['$fleet'],
  });
});

it('drops the fleets if the kind does not use them', async () => {
  const { user, onChange } = setup({ refId: 'V', queryType: 'variable', variable: 'devices', fleets: ['$fleet'] });
  expect(screen.getByText('$fleet')).toBeInTheDocument();
  await user.click(screen.getByLabelText('Values'));
  await user.click(await screen.findByRole('option', { name: /^Severities/ }));
  expect(onChange).toHaveBeenCalledWith({ refId: 'V', queryType: 'variable', variable: 'severities' });
});
