import { getTemplateSrv } from '@grafana/runtime';
import { render, screen } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import React from 'react';

import { fleetDataSource } from '../testing/datasource';
import { templateService } from '../testing/templates';
import { AnnotationQueryEditor } from './AnnotationQueryEditor';

jest.mock('@grafana/runtime', () => ({
  ...jest.requireActual('@grafana/runtime'),
  getTemplateSrv: jest.fn(),
}));

it('selects alerts, and keeps type and format', async () => {
  jest.mocked(getTemplateSrv).mockReturnValue(templateService());
  const onChange = jest.fn();
  const onRunQuery = jest.fn();
  render(
    <AnnotationQueryEditor
      datasource={fleetDataSource().datasource}
      query={{ refId: 'Anno', fleets: ['fleet-001'] }}
      onChange={onChange}
      onRunQuery={onRunQuery}
    />
  );
  expect(screen.queryByLabelText('Query type')).not.toBeInTheDocument();
  expect(screen.queryByRole('radiogroup', { name: 'Format' })).not.toBeInTheDocument();

  const user = userEvent.setup();
  await user.click(screen.getByLabelText('Severities'));
  await user.click(await screen.findByRole('option', { name: 'High' }));
  expect(onChange).toHaveBeenCalledWith({
    refId: 'Anno',
    queryType: 'alerts',
    format: 'annotations',
    fleets: ['fleet-001'],
    severities: ['HIGH'],
  });
  expect(onRunQuery).toHaveBeenCalledTimes(1);
});
