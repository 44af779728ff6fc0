import { type AnnotationSupport } from '@grafana/data';

import { AnnotationQueryEditor } from './components/AnnotationQueryEditor';
import { type FleetQuery } from './types';

const ALERTS = { queryType: 'alerts', format: 'annotations' } as const;

/** Annotations are alerts. Grafana finds time, title, text, tags and id in the frame by name. */
export const alertAnnotations: AnnotationSupport<FleetQuery> = {
  getDefaultQuery: () => ALERTS,
  prepareQuery: ({ target }) => ({ refId: 'Anno', ...target, ...ALERTS }),
  QueryEditor: AnnotationQueryEditor,
};
