import { CustomVariableSupport, type DataQueryRequest, type DataQueryResponse } from '@grafana/data';
import { type Observable } from 'rxjs';

import { VariableQueryEditor } from './components/VariableQueryEditor';
import { type EditorDataSource, type FleetQuery, type Settings } from './types';

/** Variables query the backend like panels, so Grafana shows a failure instead of an empty list. */
export class FleetVariables extends CustomVariableSupport<EditorDataSource, FleetQuery, FleetQuery, Settings> {
  editor = VariableQueryEditor;

  constructor(private readonly run: (request: DataQueryRequest<FleetQuery>) => Observable<DataQueryResponse>) {
    super();
  }

  query(request: DataQueryRequest<FleetQuery>): Observable<DataQueryResponse> {
    const targets = request.targets.map((target): FleetQuery => ({
      ...target,
      refId: target.refId || 'variable',
      queryType: 'variable',
      variable: target.variable ?? 'fleets',
    }));
    return this.run({ ...request, targets });
  }
}
