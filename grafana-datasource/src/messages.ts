import { isFetchError } from '@grafana/runtime';

/** The message of an error, preferably from the backend. */
export function messageOf(error: unknown): string {
  if (isFetchError(error)) {
    return error.data?.message || error.statusText || `status ${error.status}`;
  }
  return error instanceof Error ? error.message : String(error);
}
