import { isFetchError } from '@grafana/runtime';

/** What went wrong, in the words of the backend where it has some. */
export function messageOf(error: unknown): string {
  if (isFetchError(error)) {
    return error.data?.message || error.statusText || `status ${error.status}`;
  }
  return error instanceof Error ? error.message : String(error);
}
