import { getTemplateSrv } from '@grafana/runtime';
import { act, render, screen, waitFor, within } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import React, { useState } from 'react';

import { EXAMPLE } from '../cql';
import { fleetDataSource } from '../testing/datasource';
import { templateService } from '../testing/templates';
import { type FleetQuery, type Settings } from '../types';
import { QueryEditor } from './QueryEditor';

jest.mock('@grafana/runtime', () => ({
  ...jest.requireActual('@grafana/runtime'),
  getTemplateSrv: jest.fn(),
}));

interface CodeEditorProps {
  value: string;
  onBlur: (text: string) => void;
  onEditorDidMount: (editor: object, monaco: object) => void;
}

// Monaco needs a browser. Like Monaco, this editor keeps the functions that it gets when it mounts.
jest.mock('@grafana/ui', () => ({
  ...jest.requireActual('@grafana/ui'),
  CodeEditor: function CodeEditor({ value, onBlur, onEditorDidMount }: CodeEditorProps) {
    const [initial] = jest.requireActual('react').useState({ onEditorDidMount });
    const mount = (textarea: HTMLTextAreaElement | null) => {
      const addAction = ({ keybindings, run }: { keybindings: number[]; run: () => void }) =>
        textarea?.addEventListener('keydown', ({ ctrlKey, key }) => {
          if (ctrlKey && key === 'Enter' && keybindings.includes(2048 | 3)) {
            run();
          }
        });
      if (textarea && !textarea.dataset.mounted) {
        textarea.dataset.mounted = 'true';
        initial.onEditorDidMount(
          { addAction, updateOptions: () => {}, getValue: () => textarea.value },
          { KeyMod: { CtrlCmd: 2048 }, KeyCode: { Enter: 3 } }
        );
      }
    };
    return (
      <textarea
        ref={mount}
        aria-label="CQL"
        defaultValue={value}
        onBlur={(event) => onBlur(event.currentTarget.value)}
      />
    );
  },
}));

beforeEach(() => {
  jest.mocked(getTemplateSrv).mockReturnValue(templateService({ name: 'fleet', value: 'fleet-001' }));
});

interface Setup {
  settings?: Partial<Settings>;
  resources?: Record<string, unknown>;
  maxDeviceSuggestions?: number;
}

/** Renders the editor like Grafana: its changes come back as its query. */
function setup(query: Partial<FleetQuery>, { settings, resources, maxDeviceSuggestions = 500 }: Setup = {}) {
  const { datasource, getResource } = fleetDataSource(settings, {
    fleets: ['fleet-001', 'fleet-002'],
    devices: ['vehicle-0001', 'vehicle-0002'],
    zones: ['depot', 'unknown'],
    'alert-types': ['overspeed'],
    schema: { keyspace: 'fleet_iot', tables: [] },
    ...resources,
  });
  Object.assign(datasource, { maxDeviceSuggestions });
  const onChange = jest.fn();
  const onRunQuery = jest.fn();
  const Panel = () => {
    const [shown, setShown] = useState<FleetQuery>(Object.freeze({ refId: 'A', ...query }));
    return (
      <QueryEditor
        datasource={datasource}
        query={shown}
        onRunQuery={onRunQuery}
        onChange={(next) => {
          onChange(next);
          setShown(Object.freeze(next));
        }}
      />
    );
  };
  render(<Panel />);
  return { onChange, onRunQuery, getResource, user: userEvent.setup() };
}

async function choose(user: ReturnType<typeof userEvent.setup>, label: string, option: string | RegExp) {
  await user.click(screen.getByLabelText(label));
  await user.click(await screen.findByRole('option', { name: option }));
}

describe('each query type', () => {
  it.each<[Partial<FleetQuery>, string[], string[]]>([
    [
      {},
      ['Fleets', 'Vehicles', 'States', 'Geofences', 'Speed from (km/h)', 'Battery to (%)', 'Live'],
      ['CQL', 'Severities', 'Fields'],
    ],
    [{ queryType: 'latest', format: 'numeric' }, ['Fleets', 'Fields'], ['Live']],
    [{ queryType: 'track' }, ['Vehicles', 'Fields', 'Limit'], ['Fleets', 'Live', 'Severities']],
    [{ queryType: 'track', format: 'table' }, ['Vehicles', 'Limit'], ['Fields']],
    [{ queryType: 'analytics', format: 'table' }, ['Fleets'], ['Fields']],
    [{ queryType: 'analytics' }, ['Fleets', 'Fields'], ['Vehicles', 'Live']],
    [{ queryType: 'alerts' }, ['Fleets', 'Vehicles', 'Severities', 'Alert types'], ['Fields', 'Live', 'Geofences']],
    [{ queryType: 'devices' }, ['Fleets', 'Vehicles'], ['Fields', 'Severities']],
    [{ queryType: 'fleets' }, ['Fleets'], ['Vehicles', 'Fields']],
    [{ queryType: 'geofences' }, ['Fleets'], ['Vehicles', 'Fields']],
    [{ queryType: 'raw' }, ['CQL', 'Limit'], ['Fleets', 'Vehicles']],
  ])('%j has its own form', (query, shown, hidden) => {
    setup(query);
    for (const label of shown) {
      expect(screen.getByLabelText(label)).toBeInTheDocument();
    }
    for (const label of hidden) {
      expect(screen.queryByLabelText(label)).not.toBeInTheDocument();
    }
  });

  it('offers its formats', () => {
    setup({ queryType: 'alerts', format: 'logs' });
    expect(
      within(screen.getByRole('radiogroup', { name: 'Format' }))
        .getAllByRole('radio')
        .map((radio) => [radio.parentElement?.textContent?.trim(), (radio as HTMLInputElement).checked])
    ).toEqual([
      ['Table', false],
      ['Logs', true],
      ['Time series', false],
      ['Numbers', false],
    ]);
  });

  it('shows the current format even if the type does not offer it', () => {
    setup({ queryType: 'alerts', format: 'annotations' });
    expect(screen.getByRole('radio', { name: 'Annotations' })).toBeChecked();
  });

  it('keeps only the filters that the new type has, too', async () => {
    const { user, onChange, onRunQuery } = setup({
      queryType: 'latest',
      fleets: ['fleet-001'],
      devices: ['vehicle-0001'],
      zones: ['depot'],
      minSpeedKmh: 5,
      live: true,
    });
    await choose(user, 'Query type', /^Alerts/);
    expect(onChange).toHaveBeenLastCalledWith({
      refId: 'A',
      queryType: 'alerts',
      format: 'table',
      fleets: ['fleet-001'],
      devices: ['vehicle-0001'],
    });
    expect(onRunQuery).toHaveBeenCalledTimes(1);
    expect(screen.getByLabelText('Severities')).toBeInTheDocument();
  });

  it('describes the types', async () => {
    const { user } = setup({});
    await user.click(screen.getByLabelText('Query type'));
    expect(await screen.findByRole('option', { name: /Track.*history of named vehicles/ })).toBeInTheDocument();
  });

  it('does not offer raw CQL if it is not allowed', async () => {
    const { user } = setup({}, { settings: { allowRaw: false } });
    await user.click(screen.getByLabelText('Query type'));
    expect(await screen.findByRole('option', { name: /^Geofences/ })).toBeInTheDocument();
    expect(screen.queryByRole('option', { name: /^Raw CQL/ })).not.toBeInTheDocument();
  });

  it('warns if a query uses raw CQL that is not allowed', () => {
    setup({ queryType: 'raw', cql: 'SELECT' }, { settings: { allowRaw: false } });
    expect(screen.getByText(/turned off for this data source/)).toBeInTheDocument();
  });
});

describe('lists', () => {
  it('shows the values of the query, known or not', () => {
    setup({ queryType: 'alerts', fleets: ['$fleet', 'fleet-077'], severities: ['HIGH', '$severity'] });
    for (const value of ['$fleet', 'fleet-077', 'High', '$severity']) {
      expect(screen.getByText(value)).toBeInTheDocument();
    }
  });

  it('accepts suggestions and template variables', async () => {
    const { user, onChange, onRunQuery } = setup({ queryType: 'latest' });
    await choose(user, 'Fleets', 'fleet-002');
    expect(onChange).toHaveBeenLastCalledWith(expect.objectContaining({ fleets: ['fleet-002'] }));
    await choose(user, 'Fleets', '$fleet');
    expect(onChange).toHaveBeenLastCalledWith(expect.objectContaining({ fleets: ['fleet-002', '$fleet'] }));
    expect(onRunQuery).toHaveBeenCalledTimes(2);
  });

  it('accepts a typed value', async () => {
    const { user, onChange } = setup({ queryType: 'track' });
    await user.type(screen.getByLabelText('Vehicles'), 'vehicle-9999{Enter}');
    expect(onChange).toHaveBeenLastCalledWith(expect.objectContaining({ devices: ['vehicle-9999'] }));
  });

  it('removes the filter with its last value', async () => {
    const { user, onChange } = setup({ queryType: 'fleets', fleets: ['fleet-001'] });
    await user.click(screen.getByRole('button', { name: /remove/i }));
    expect(onChange.mock.lastCall[0].fleets).toBeUndefined();
  });

  it('suggests the geofences of the chosen fleets', async () => {
    const { user, getResource } = setup({ queryType: 'latest', fleets: ['$fleet'] });
    await user.click(screen.getByLabelText('Geofences'));
    expect(await screen.findByRole('option', { name: 'depot' })).toBeInTheDocument();
    expect(getResource).toHaveBeenLastCalledWith('zones', { fleet: ['fleet-001'] }, expect.anything());
  });

  it('searches vehicles by prefix if the list is incomplete', async () => {
    const { user, getResource } = setup({ queryType: 'track' }, { maxDeviceSuggestions: 2 });
    await user.click(screen.getByLabelText('Vehicles'));
    await screen.findByRole('option', { name: 'vehicle-0001' });
    await user.type(screen.getByLabelText('Vehicles'), 'truck');
    await waitFor(() =>
      expect(getResource).toHaveBeenLastCalledWith('devices', { prefix: 'truck', limit: 2 }, expect.anything())
    );
  });

  it('shows the response to the latest request, even if it arrives first', async () => {
    const { user, getResource } = setup({ queryType: 'track' }, { maxDeviceSuggestions: 2 });
    await user.click(screen.getByLabelText('Vehicles'));
    await screen.findByRole('option', { name: 'vehicle-0001' });
    let respondFirst: (devices: string[]) => void = () => {};
    getResource.mockImplementationOnce(() => new Promise((resolve) => (respondFirst = resolve)));
    await user.type(screen.getByLabelText('Vehicles'), 't');
    await waitFor(() => expect(getResource).toHaveBeenCalledTimes(2));
    getResource.mockResolvedValueOnce(['truck-newer']);
    await user.type(screen.getByLabelText('Vehicles'), 'r');
    await screen.findByRole('option', { name: 'truck-newer' });
    await act(async () => respondFirst(['truck-older']));
    expect(screen.getByRole('option', { name: 'truck-newer' })).toBeInTheDocument();
    expect(screen.queryByRole('option', { name: 'truck-older' })).not.toBeInTheDocument();
  });

  it('does not request a complete list again', async () => {
    const { user, getResource } = setup({ queryType: 'track' });
    await user.click(screen.getByLabelText('Vehicles'));
    await screen.findByRole('option', { name: 'vehicle-0001' });
    await user.type(screen.getByLabelText('Vehicles'), 'truck');
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(getResource).toHaveBeenCalledTimes(1);
  });

  it('shows why there are no suggestions, and still accepts values', async () => {
    const { user, onChange } = setup({ queryType: 'fleets' }, { resources: { fleets: new Error('no host answers') } });
    await user.type(screen.getByLabelText('Fleets'), 'fleet-003');
    expect(await screen.findByText(/No suggestions: no host answers/)).toBeInTheDocument();
    await user.keyboard('{Enter}');
    expect(onChange).toHaveBeenLastCalledWith(expect.objectContaining({ fleets: ['fleet-003'] }));
  });
});

describe('numbers', () => {
  it('are applied when the field loses focus', async () => {
    const { user, onChange, onRunQuery } = setup({});
    await user.type(screen.getByLabelText('Speed from (km/h)'), '12.5');
    expect(onChange).not.toHaveBeenCalled();
    await user.tab();
    expect(onChange).toHaveBeenLastCalledWith({ refId: 'A', minSpeedKmh: 12.5 });
    expect(onRunQuery).toHaveBeenCalledTimes(1);
  });

  it('are applied by Enter, and can be cleared', async () => {
    const { user, onChange } = setup({ limit: 10 });
    const limit = screen.getByLabelText('Limit');
    expect(limit).toHaveValue(10);
    await user.click(limit);
    await user.keyboard('{Enter}');
    expect(onChange).not.toHaveBeenCalled();
    await user.clear(limit);
    await user.keyboard('{Enter}');
    expect(onChange).toHaveBeenLastCalledWith({ refId: 'A', limit: undefined });
  });

  it('are rejected if they are out of range', async () => {
    const { user, onChange } = setup({});
    await user.type(screen.getByLabelText('Battery to (%)'), '120');
    await user.tab();
    expect(screen.getByText('A number from 0 to 100')).toBeInTheDocument();
    expect(onChange).not.toHaveBeenCalled();
  });

  it('shows the limit of the data source', () => {
    setup({}, { settings: { maxRows: 2500 } });
    expect(screen.getByLabelText('Limit')).toHaveAttribute('placeholder', '2500');
  });
});

describe('latest positions', () => {
  it('switches the live map on and off', async () => {
    const { user, onChange } = setup({});
    await user.click(screen.getByLabelText('Live'));
    expect(onChange).toHaveBeenLastCalledWith({ refId: 'A', live: true });
    await user.click(screen.getByLabelText('Live'));
    expect(onChange.mock.lastCall[0].live).toBeUndefined();
  });

  it('is not live in the format numbers', async () => {
    const { user, onChange } = setup({ live: true });
    await user.click(screen.getByRole('radio', { name: 'Numbers' }));
    expect(onChange).toHaveBeenLastCalledWith({ refId: 'A', format: 'numeric', live: undefined });
  });
});

describe('alerts', () => {
  it('can be limited to open alerts', async () => {
    const { user, onChange } = setup({ queryType: 'alerts' });
    await user.click(screen.getByRole('radio', { name: 'Open' }));
    expect(onChange).toHaveBeenLastCalledWith({ refId: 'A', queryType: 'alerts', resolved: 'open' });
  });
});

describe('raw CQL', () => {
  it('is applied when the editor loses focus, if it changed', async () => {
    const { user, onChange, onRunQuery } = setup({ queryType: 'raw', cql: 'SELECT a' });
    await user.click(screen.getByLabelText('CQL'));
    await user.tab();
    expect(onChange).not.toHaveBeenCalled();

    await user.type(screen.getByLabelText('CQL'), ' FROM t');
    await user.tab();
    expect(onChange).toHaveBeenLastCalledWith({ refId: 'A', queryType: 'raw', cql: 'SELECT a FROM t' });
    expect(onRunQuery).toHaveBeenCalledTimes(1);
  });

  it('runs with Ctrl+Enter, changed or not, with the current query', async () => {
    const { user, onChange, onRunQuery } = setup({ queryType: 'raw', cql: 'SELECT a' });
    await user.click(screen.getByRole('radio', { name: 'Logs' }));
    await user.type(screen.getByLabelText('CQL'), ' FROM t');
    await user.keyboard('{Control>}{Enter}{/Control}');
    expect(onChange).toHaveBeenLastCalledWith({ refId: 'A', queryType: 'raw', format: 'logs', cql: 'SELECT a FROM t' });
    await user.keyboard('{Control>}{Enter}{/Control}');
    expect(onRunQuery).toHaveBeenCalledTimes(3);
  });

  it('can start from an example', async () => {
    const { user, onChange } = setup({ queryType: 'raw' });
    await user.click(screen.getByRole('button', { name: 'Start from an example' }));
    expect(onChange).toHaveBeenLastCalledWith({ refId: 'A', queryType: 'raw', cql: EXAMPLE });
    expect(screen.queryByRole('button', { name: 'Start from an example' })).not.toBeInTheDocument();
  });

  it('shows that completion is not available', async () => {
    setup({ queryType: 'raw' }, { resources: { schema: new Error('no host answers') } });
    expect(
      await screen.findByText(/Completion of tables and columns is not available: no host answers/)
    ).toBeInTheDocument();
  });
});
