package cql

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Range is the time range of a query, which macros insert.
type Range struct {
	From, To time.Time     // both included
	Interval time.Duration // between two points of a panel
	MaxDays  int           // maximum that $__days may list
}

const macroNames = "$__timeFrom, $__timeTo, $__timeFilter(column), $__days and $__interval"

var (
	macroForm  = regexp.MustCompile(`\$__(\w+)(?:\(([^()]*)\))?`)
	columnForm = regexp.MustCompile(`^(?:[a-zA-Z_][a-zA-Z0-9_]*|"(?:[^"]|"")+")$`)
)

// Expand replaces the macros of a statement: $__timeFrom and $__timeTo (timestamps in milliseconds),
// $__timeFilter(column), $__days (the UTC days of the range, for "day IN ($__days)") and $__interval (a duration).
func Expand(statement string, r Range) (string, error) {
	if len(statement) > MaxText {
		return "", fmt.Errorf("statement: %d bytes; at most %d are accepted", len(statement), MaxText)
	}
	var failed error
	fail := func(format string, args ...any) string {
		if failed == nil {
			failed = fmt.Errorf(format, args...)
		}
		return ""
	}
	expand := func(found string) string {
		m := macroForm.FindStringSubmatch(found)
		name, argument := m[1], strings.TrimSpace(m[2])
		// Only $__timeFilter has an argument. Parentheses behind other macros belong to the statement.
		rest := strings.TrimPrefix(found, "$__"+name)
		switch name {
		case "timeFrom":
			return fmt.Sprint(r.From.UnixMilli()) + strings.TrimPrefix(rest, "()")
		case "timeTo":
			return fmt.Sprint(r.To.UnixMilli()) + strings.TrimPrefix(rest, "()")
		case "timeFilter":
			if !columnForm.MatchString(argument) {
				return fail("macro %s: name the time column, for example $__timeFilter(ts)", shown(found))
			}
			return fmt.Sprintf("%s >= %d AND %s <= %d", argument, r.From.UnixMilli(), argument, r.To.UnixMilli())
		case "interval":
			return fmt.Sprintf("%dms", max(r.Interval.Milliseconds(), 1)) + rest
		case "interval_ms":
			return fmt.Sprint(max(r.Interval.Milliseconds(), 1)) + rest
		case "days":
			days, err := r.days()
			if err != nil {
				return fail("macro $__days: %w", err)
			}
			return days + rest
		default:
			return fail("macro %s: unknown; use one of %s", shown(found), macroNames)
		}
	}
	size := len(statement)
	expanded := macroForm.ReplaceAllStringFunc(statement, func(found string) string {
		if failed != nil {
			return ""
		}
		text := expand(found)
		if size += len(text) - len(found); size > MaxText { // the list of days is long, and a statement has room for many
			return fail("statement: more than %d bytes after macro expansion; choose a shorter time range", MaxText)
		}
		return text
	})
	if failed != nil {
		return "", failed
	}
	return expanded, nil
}

func (r Range) days() (string, error) {
	first, last := r.From.UTC().Truncate(24*time.Hour), r.To.UTC().Truncate(24*time.Hour)
	if n := int(last.Sub(first).Hours()/24) + 1; n > r.MaxDays {
		return "", fmt.Errorf("the time range has %d days; at most %d are allowed; choose a shorter one", n, r.MaxDays)
	}
	var days []string
	for day := first; !day.After(last); day = day.AddDate(0, 0, 1) {
		days = append(days, day.Format("'2006-01-02'"))
	}
	return strings.Join(days, ", "), nil
}
