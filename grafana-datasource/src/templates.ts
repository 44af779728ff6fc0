import { type ScopedVars } from '@grafana/data';
import { getTemplateSrv, type VariableInterpolation } from '@grafana/runtime';

type Formatter = (value: unknown, variable?: { name?: string; multi?: boolean; includeAll?: boolean }) => string;

/** What an entry such as `$fleet` stands for. */
interface Expansion {
  /** Some variable of the entries is at "All". */
  all: boolean;
  values: string[];
}

const ALL = '$__all';
/** The custom value of "All" that means no restriction. */
const ALL_OF_CUSTOM = '*';

/**
 * Expands the template variables of list entries. A multi-value variable becomes one entry for each value, also inside
 * a longer text (`truck-$n`); blank entries are left out.
 */
export function expand(entries: string[] | undefined, scopedVars: ScopedVars): Expansion {
  const expansion: Expansion = { all: false, values: [] };
  for (const entry of entries ?? []) {
    const { all, values } = expandEntry(entry, scopedVars);
    expansion.all ||= all;
    for (const value of values) {
      if (!expansion.values.includes(value)) {
        expansion.values.push(value);
      }
    }
  }
  return expansion;
}

function expandEntry(entry: string, scopedVars: ScopedVars): Expansion {
  const lists: string[][] = [];
  let all = false;
  // Each variable leaves a mark in the text, so that its values can be put in one at a time.
  const mark: Formatter = (value, variable) => {
    const list = (Array.isArray(value) ? value : [value]).map(String);
    // A panel that repeats for each value has a single value, though the variable of the dashboard is at "All".
    all ||= Array.isArray(value) && isAtAll(variable?.name);
    return `\u0000${lists.push(list) - 1}\u0000`;
  };
  const interpolations: VariableInterpolation[] = [];
  const text = getTemplateSrv().replace(entry, scopedVars, mark, interpolations);

  if (text === ALL || text === ALL_OF_CUSTOM) {
    // Grafana inserts a custom value of "All" without asking the formatter.
    return { all: true, values: interpolations.flatMap(({ variableName }) => optionsOf(variableName)) };
  }

  let values = [''];
  text.split('\u0000').forEach((part, i) => {
    const choices = i % 2 === 0 ? [part] : lists[Number(part)];
    values = values.flatMap((head) => choices.map((tail) => head + tail));
  });
  return { all, values: values.map((value) => value.trim()).filter((value) => value !== '') };
}

/** The macros of the backend. Grafana has built-in variables of the same names, and would fill in its own values. */
const BACKEND_MACROS = /\$__(timeFilter|timeFrom|timeTo|days|interval_ms|interval)\b/g;

/** Puts the template variables into CQL: scalars as they are, multi-value ones as a list of quoted texts. */
export function interpolateCql(cql: string, scopedVars: ScopedVars): string {
  const hidden = cql.replace(BACKEND_MACROS, (_, name) => `\u0000${name}\u0000`);
  const quoteLists: Formatter = (value, variable) => {
    if (Array.isArray(value)) {
      return value.map(quote).join(', ');
    }
    // One value of a multi-value variable stands where several may stand tomorrow.
    return variable?.multi || variable?.includeAll ? quote(value) : String(value);
  };
  return getTemplateSrv()
    .replace(hidden, scopedVars, quoteLists)
    .replace(/\u0000(\w+)\u0000/g, '$$__$1');
}

function quote(value: unknown): string {
  return `'${String(value).replace(/'/g, "''")}'`;
}

function isAtAll(name: string | undefined): boolean {
  const variable = findVariable(name);
  if (!variable || !('current' in variable) || !variable.current || !('value' in variable.current)) {
    return false;
  }
  const { value } = variable.current;
  return Array.isArray(value) ? value.includes(ALL) : value === ALL;
}

function optionsOf(name: string): string[] {
  const variable = findVariable(name);
  if (!variable || !('options' in variable)) {
    return [];
  }
  return variable.options.map(({ value }) => String(value)).filter((value) => value !== ALL);
}

function findVariable(name: string | undefined) {
  return getTemplateSrv()
    .getVariables()
    .find((variable) => variable.name === name);
}
