import { type AnnotationSupport } from '@grafana/data';

import { AnnotationQueryEditor } from './components/AnnotationQueryEditor';
import { type FleetQuery } from './types';

const ALERTS = { queryType: 'alerts', format: 'annotations' } as const;

/** Alerts as annotations: Grafana reads time, title, text, tags and id from the frame by their names. */
export const alertAnnotations: AnnotationSupport<FleetQuery> = {
  getDefaultQuery: () => ALERTS,
  prepareQuery: ({ target }) => ({ refId: 'Anno', ...target, ...ALERTS }),
  QueryEditor: AnnotationQueryEditor,
};
