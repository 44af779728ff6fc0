import { type ScopedVars } from '@grafana/data';
import { type TemplateSrv, type VariableInterpolation } from '@grafana/runtime';

interface Variable {
  name: string;
  value: string | string[];
  /** The options, without "All". */
  options?: string[];
  multi?: boolean;
  includeAll?: boolean;
  allValue?: string;
}

type Format = string | ((value: unknown, variable: object) => string);

const REFERENCE = /\$(\w+)|\[\[(\w+?)(?::(\w+))?\]\]|\${(\w+)(?:\.([^:^}]+))?(?::([^}]+))?}/g;

/**
 * A fake of Grafana's template service with the same rules: scoped variables come first, unknown names stay, and "All" is
 * the list of options. A custom value of "All" replaces that list and bypasses the formatter.
 */
export function templateService(...variables: Variable[]): TemplateSrv {
  const replace = (
    target = '',
    scopedVars: ScopedVars = {},
    format: Format = 'glob',
    interpolations: VariableInterpolation[] = []
  ) =>
    target.replace(REFERENCE, (match, plain, bracketed, _format, braced) => {
      const name = plain ?? bracketed ?? braced;
      const variable = variables.find((candidate) => candidate.name === name);
      const scoped = scopedVars[name];
      if (!variable && !scoped) {
        interpolations.push({ match, variableName: name, value: match, found: false });
        return match;
      }
      const value = scoped ? scoped.value : isAll(variable!) ? (variable!.options ?? []) : variable!.value;
      const text =
        !scoped && isAll(variable!) && variable!.allValue
          ? variable!.allValue
          : typeof format === 'function'
            ? format(value, variable ?? { name })
            : Array.isArray(value)
              ? `{${value.join(',')}}`
              : String(value);
      interpolations.push({ match, variableName: name, value: text, found: true });
      return text;
    });

  return {
    replace,
    containsTemplate: (target = '') => new RegExp(REFERENCE.source).test(target),
    updateTimeRange: () => {},
    getVariables: () =>
      variables.map(({ name, value, options = [], multi, includeAll, allValue }) => ({
        name,
        type: 'query',
        multi,
        includeAll,
        allValue,
        current: { value, text: value },
        options: (includeAll ? ['$__all', ...options] : options).map((option) => ({ value: option, text: option })),
      })) as unknown as ReturnType<TemplateSrv['getVariables']>,
  } as TemplateSrv;
}

function isAll({ value }: Variable): boolean {
  return Array.isArray(value) ? value.includes('$__all') : value === '$__all';
}
