import { type ScopedVars } from '@grafana/data';
import { getTemplateSrv, type VariableInterpolation } from '@grafana/runtime';

type Formatter = (value: unknown, variable?: { name?: string; multi?: boolean; includeAll?: boolean }) => string;

/** The values of entries such as `$fleet`. */
interface Expansion {
  /** Whether a variable of the entries is set to "All". */
  all: boolean;
  values: string[];
}

const ALL = '$__all';
/** The custom value of "All" that means no restriction. */
const ALL_OF_CUSTOM = '*';

/**
 * Expands the template variables of list entries. A multi-value variable becomes one entry for each value, even inside
 * a longer text (`truck-$n`). Blank entries are dropped.
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
  // Each variable leaves a placeholder in the text, which its values replace one at a time.
  const placeholder: Formatter = (value, variable) => {
    const list = (Array.isArray(value) ? value : [value]).map(String);
    // A repeated panel has a single value, even if the variable of the dashboard is set to "All".
    all ||= Array.isArray(value) && isAtAll(variable?.name);
    return `\u0000${lists.push(list) - 1}\u0000`;
  };
  const interpolations: VariableInterpolation[] = [];
  const text = getTemplateSrv().replace(entry, scopedVars, placeholder, interpolations);

  if (text === ALL || text === ALL_OF_CUSTOM) {
    // Grafana inserts a custom value of "All" without calling the formatter.
    return { all: true, values: interpolations.flatMap(({ variableName }) => optionsOf(variableName)) };
  }

  let values = [''];
  text.split('\u0000').forEach((part, i) => {
    const choices = i % 2 === 0 ? [part] : lists[Number(part)];
    values = values.flatMap((head) => choices.map((tail) => head + tail));
  });
  return { all, values: values.map((value) => value.trim()).filter((value) => value !== '') };
}

/** The macros of the backend. They are hidden from Grafana, which has built-in variables with the same names. */
const BACKEND_MACROS = /\$__(timeFilter|timeFrom|timeTo|days|interval_ms|interval)\b/g;

/** Inserts template variables into CQL: single values unchanged, multiple values as a list of quoted texts. */
export function interpolateCql(cql: string, scopedVars: ScopedVars): string {
  const hidden = cql.replace(BACKEND_MACROS, (_, name) => `\u0000${name}\u0000`);
  const quoteLists: Formatter = (value, variable) => {
    if (Array.isArray(value)) {
      return value.map(quote).join(', ');
    }
    // A multi-value variable with one value may have several later, so its value is quoted, too.
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
