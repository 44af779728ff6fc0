import { CustomVariableSupport, type DataQueryRequest, type DataQueryResponse } from '@grafana/data';
import { type Observable } from 'rxjs';

import { VariableQueryEditor } from './components/VariableQueryEditor';
import { type FleetDataSource } from './datasource';
import { type FleetQuery, type Settings } from './types';

/** Variables ask the backend like panels do, so a failure is shown at the variable and not as an empty list. */
export class FleetVariables extends CustomVariableSupport<FleetDataSource, FleetQuery, FleetQuery, Settings> {
  editor = VariableQueryEditor;

  constructor(private readonly datasource: FleetDataSource) {
    super();
  }

  query(request: DataQueryRequest<FleetQuery>): Observable<DataQueryResponse> {
    const targets = request.targets.map((target): FleetQuery => ({
      ...target,
      refId: target.refId || 'variable',
      queryType: 'variable',
      variable: target.variable ?? 'fleets',
    }));
    return this.datasource.query({ ...request, targets });
  }
}
