package cql

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var tables = []Table{
	{"telemetry_by_device_day", []string{"device_id", "day"}},
	{"alerts_by_fleet_day", []string{"fleet_id", "day", "severity"}},
	{"latest_telemetry_by_device", []string{"device_id"}},
	{"Odd", []string{"Key"}},
}

var rules = Rules{Keyspace: "fleet_iot", MaxPartitions: 60}

func TestValidateSplitsStatementsByPartition(t *testing.T) {
	for name, c := range map[string]struct {
		statement string
		want      []string
	}{
		"one partition": {
			"SELECT * FROM latest_telemetry_by_device WHERE device_id = 'a' ;",
			[]string{"SELECT * FROM latest_telemetry_by_device WHERE device_id = 'a'"},
		},
		"days in parallel": {
			"select ts, speed_kmh from fleet_iot.telemetry_by_device_day where device_id='a' and day in ('2026-01-01', '2026-01-02') and ts > 5 limit 10",
			[]string{
				"select ts, speed_kmh from fleet_iot.telemetry_by_device_day where device_id='a' and day = '2026-01-01' and ts > 5 limit 10",
				"select ts, speed_kmh from fleet_iot.telemetry_by_device_day where device_id='a' and day = '2026-01-02' and ts > 5 limit 10",
			},
		},
		"two keys with several values": {
			"SELECT * FROM alerts_by_fleet_day WHERE day IN ('2026-01-01') AND severity IN ('HIGH','LOW') AND fleet_id IN ('f', 'g')",
			[]string{
				"SELECT * FROM alerts_by_fleet_day WHERE day IN ('2026-01-01') AND severity = 'HIGH' AND fleet_id = 'f'",
				"SELECT * FROM alerts_by_fleet_day WHERE day IN ('2026-01-01') AND severity = 'HIGH' AND fleet_id = 'g'",
				"SELECT * FROM alerts_by_fleet_day WHERE day IN ('2026-01-01') AND severity = 'LOW' AND fleet_id = 'f'",
				"SELECT * FROM alerts_by_fleet_day WHERE day IN ('2026-01-01') AND severity = 'LOW' AND fleet_id = 'g'",
			},
		},
		"a word directly behind a list": {
			"SELECT * FROM telemetry_by_device_day WHERE device_id='a' AND day IN(1,2)AND x > 1",
			[]string{
				"SELECT * FROM telemetry_by_device_day WHERE device_id='a' AND day = 1 AND x > 1",
				"SELECT * FROM telemetry_by_device_day WHERE device_id='a' AND day = 2 AND x > 1",
			},
		},
		"a count stays whole": {
			"SELECT COUNT(*) FROM latest_telemetry_by_device WHERE device_id IN ('a','b')",
			[]string{"SELECT COUNT(*) FROM latest_telemetry_by_device WHERE device_id IN ('a','b')"},
		},
		"quoted names, quotes and keywords in texts": {
			`SELECT "a""b" FROM "Odd" WHERE "Key" = 'it''s; DROP TABLE x -- no' ORDER BY "c" DESC PER PARTITION LIMIT 2 LIMIT 3`,
			[]string{`SELECT "a""b" FROM "Odd" WHERE "Key" = 'it''s; DROP TABLE x -- no' ORDER BY "c" DESC PER PARTITION LIMIT 2 LIMIT 3`},
		},
		"functions, casts, elements and literals": {
			"SELECT toDate(ts) AS d, CAST(speed_kmh AS text), m['k'], writetime(lat) FROM latest_telemetry_by_device WHERE device_id = 'a' AND x > -1.5e-3 AND u = 550e8400-e29b-41d4-a716-446655440000 AND b = 0xCAFE AND s CONTAINS KEY 'k' AND (c1, c2) > (1, {'a': [1, 2]}) AND d > P0001-02-03T00:00:00 AND floor(ts, 1h30m) = 5",
			[]string{"SELECT toDate(ts) AS d, CAST(speed_kmh AS text), m['k'], writetime(lat) FROM latest_telemetry_by_device WHERE device_id = 'a' AND x > -1.5e-3 AND u = 550e8400-e29b-41d4-a716-446655440000 AND b = 0xCAFE AND s CONTAINS KEY 'k' AND (c1, c2) > (1, {'a': [1, 2]}) AND d > P0001-02-03T00:00:00 AND floor(ts, 1h30m) = 5"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := Validate(c.statement, tables, rules)
			require.NoError(t, err)
			assert.Equal(t, c.want, plan.Statements)
		})
	}
}

func TestValidateRejectsHostileStatements(t *testing.T) {
	many := "'" + strings.Repeat("x','", 1000) + "x'"
	million := strings.TrimSuffix(strings.Repeat("'x',", 1000), ",")
	for name, c := range map[string]struct{ statement, want string }{
		"nothing":                      {"  ", "empty"},
		"a write":                      {"INSERT INTO telemetry_by_device_day (device_id) VALUES ('x')", `begins with "INSERT"`},
		"a deletion":                   {"delete from telemetry_by_device_day where device_id='a'", `begins with "delete"`},
		"a change of the schema":       {"DROP TABLE telemetry_by_device_day", `begins with "DROP"`},
		"a batch":                      {"BEGIN BATCH DELETE FROM x WHERE y=1; APPLY BATCH", "only one statement"},
		"two statements":               {"SELECT * FROM latest_telemetry_by_device WHERE device_id='a'; DROP TABLE x", "only one statement"},
		"two closing semicolons":       {"SELECT * FROM latest_telemetry_by_device WHERE device_id='a';;", "only one statement"},
		"a comment at the end":         {"SELECT * FROM latest_telemetry_by_device WHERE device_id='a' -- AND", "comments are not allowed"},
		"a comment inside":             {"SELECT /* x */ * FROM latest_telemetry_by_device WHERE device_id='a'", "comments are not allowed"},
		"another comment":              {"SELECT * FROM latest_telemetry_by_device // x\nWHERE device_id='a'", "comments are not allowed"},
		"another keyspace":             {"SELECT * FROM system_auth.roles WHERE role='x'", `keyspace "system_auth"`},
		"another keyspace in quotes":   {`SELECT * FROM "system"."local" WHERE key='local'`, `keyspace "system"`},
		"keyspace in other case":       {`SELECT * FROM "Fleet_Iot".latest_telemetry_by_device WHERE device_id='a'`, `keyspace "Fleet_Iot"`},
		"function of another keyspace": {"SELECT evil.f(device_id) FROM latest_telemetry_by_device WHERE device_id='a'", `function of keyspace "evil"`},
		"unknown table":                {"SELECT * FROM secrets WHERE id=1", `table "secrets"`},
		"filtering behind a number":    {"SELECT * FROM latest_telemetry_by_device WHERE device_id='a' AND speed_kmh > 1.allow filtering", "write a space"},
		"filtering behind a duration":  {"SELECT * FROM latest_telemetry_by_device WHERE device_id='a' AND d > 1mallow filtering", "write a space"},
		"a condition behind a UUID":    {"SELECT * FROM latest_telemetry_by_device WHERE device_id=550e8400-e29b-41d4-a716-446655440000and x=1", "write a space"},
		"keyword of a write":           {"SELECT drop FROM latest_telemetry_by_device WHERE device_id='a'", "DROP at line 1, column 8"},
		"a select in a select":         {"SELECT a FROM latest_telemetry_by_device WHERE device_id=(select b from x)", "SELECT at"},
		"filtering":                    {"SELECT * FROM latest_telemetry_by_device WHERE speed_kmh > 3 ALLOW FILTERING", "ALLOW FILTERING: not allowed"},
		"no condition":                 {"SELECT * FROM latest_telemetry_by_device", "device_id has no condition"},
		"part of a key":                {"SELECT * FROM telemetry_by_device_day WHERE device_id='a'", "day has no condition"},
		"a range of the key":           {"SELECT * FROM telemetry_by_device_day WHERE device_id='a' AND day > '2026-01-01'", "day has no condition"},
		"tokens":                       {"SELECT * FROM latest_telemetry_by_device WHERE token(device_id) > 5", "device_id has no condition"},
		"an empty list":                {"SELECT * FROM latest_telemetry_by_device WHERE device_id IN ()", "device_id has no condition"},
		"a list with a gap":            {"SELECT * FROM latest_telemetry_by_device WHERE device_id IN ('a',,'b')", "device_id has no condition"},
		"two lists":                    {"SELECT * FROM latest_telemetry_by_device WHERE device_id IN ()('a','b')", "device_id has no condition"},
		"AND for a value":              {"SELECT * FROM latest_telemetry_by_device WHERE device_id IN (AND, 'b')", "device_id has no condition"},
		"too many partitions":          {"SELECT * FROM latest_telemetry_by_device WHERE device_id IN (" + many + ")", "more than 60 partitions"},
		"a million partitions":         {"SELECT * FROM telemetry_by_device_day WHERE device_id IN (" + million + ") AND day IN (" + million + ")", "more than 60 partitions"},
		"ten megabytes":                {"SELECT * FROM latest_telemetry_by_device WHERE device_id='" + strings.Repeat("a", 10<<20) + "'", "at most 131072"},
		"a table with a long name":     {`SELECT * FROM "` + strings.Repeat("\x01", 100_000) + `" WHERE x=1`, "not in keyspace"},
		"a fleet with a long name":     {"SELECT * FROM " + strings.Repeat("f", 100_000) + ".alerts_by_fleet_day", "keyspace"},
		"ten megabytes of brackets":    {strings.Repeat("(", 10<<20), "at most 131072"},
		"deep nesting":                 {"SELECT * FROM latest_telemetry_by_device WHERE device_id=" + strings.Repeat("(", 100) + strings.Repeat(")", 100), "nested more than"},
		"brackets that do not match":   {"SELECT * FROM latest_telemetry_by_device WHERE device_id=('a'", "not closed"},
		"a quote that does not close":  {"SELECT * FROM latest_telemetry_by_device WHERE device_id='a", "not closed"},
		"bind marker":                  {"SELECT * FROM latest_telemetry_by_device WHERE device_id=?", "bind markers"},
		"dollar quotes":                {"SELECT * FROM latest_telemetry_by_device WHERE device_id=$$a$$", "not a macro"},
		"a control character":          {"SELECT * FROM latest_telemetry_by_device WHERE device_id='a'\x00", "not part of a SELECT"},
		"not UTF-8":                    {"SELECT \xff", "UTF-8"},
		"words after the end":          {"SELECT * FROM latest_telemetry_by_device WHERE device_id='a' LIMIT 3 DROP", "DROP at line 1"},
		"limit of zero":                {"SELECT * FROM latest_telemetry_by_device WHERE device_id='a' LIMIT 0", "whole number above 0"},
		"union":                        {"SELECT * FROM latest_telemetry_by_device UNION SELECT * FROM x", "SELECT at line 1, column 48"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Validate(c.statement, tables, rules)
			require.ErrorContains(t, err, c.want)
			assert.Less(t, len(err.Error()), 600, "users read the error")
		})
	}
}

func TestPlansAreBounded(t *testing.T) {
	many := rules
	many.MaxPartitions = 2000
	keys := make([]string, 2000)
	for i := range keys {
		keys[i] = fmt.Sprintf("'%d'", i)
	}
	statement := func(text string) string {
		return "SELECT lat, '" + text + "' FROM latest_telemetry_by_device WHERE device_id IN (" + strings.Join(keys, ",") + ")"
	}
	plan, err := Validate(statement("x"), tables, many)
	require.NoError(t, err)
	assert.Len(t, plan.Statements, 2000)
	_, err = Validate(statement(strings.Repeat("x", 100_000)), tables, many)
	require.EqualError(t, err, "statement of 100072 bytes for each of 2000 partitions: at most 16777216 bytes are accepted together; shorten it, or name fewer values")
}

func TestExpansionStopsAtTheBound(t *testing.T) {
	r := Range{From: time.Unix(0, 0), To: time.Unix(0, 0).AddDate(5, 0, 0), MaxDays: 2000}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Expand(strings.Repeat("$__days ", 16_000), r)
	runtime.ReadMemStats(&after)
	require.ErrorContains(t, err, "after macro expansion")
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "it would be 400 MB")
}

func TestRulesOfTheAdministrator(t *testing.T) {
	filtering := rules
	filtering.AllowFiltering = true
	plan, err := Validate("SELECT * FROM latest_telemetry_by_device WHERE speed_kmh > 3 ALLOW FILTERING", tables, filtering)
	require.NoError(t, err)
	assert.Len(t, plan.Statements, 1)
	_, err = Validate("SELECT * FROM latest_telemetry_by_device WHERE speed_kmh > 3", tables, filtering)
	require.Error(t, err, "the statement must say so")

	fleets := filtering
	fleets.Fleets = []string{"f1", "f2"}
	const alerts = "SELECT * FROM alerts_by_fleet_day WHERE day='2026-01-01' AND severity='HIGH' AND "
	for statement, want := range map[string]string{
		alerts + "fleet_id='f1'":                                                   "",
		alerts + "fleet_id IN ('f1','f2')":                                         "",
		alerts + "fleet_id='f3'":                                                   "not allowed for this data source",
		alerts + "fleet_id IN ('f1','f3')":                                         "not allowed for this data source",
		alerts + "fleet_id='f1' ALLOW FILTERING":                                   "",
		alerts + "fleet_id=textasblob('f1')":                                       "not allowed for this data source",
		"SELECT * FROM alerts_by_fleet_day ALLOW FILTERING":                        "name the fleet",
		"SELECT * FROM latest_telemetry_by_device WHERE device_id='a'":             "no fleet in its key",
		alerts + "fleet_id='f1' AND fleet_id='f3'":                                 "two conditions",
		alerts + "fleet_id='f1' AND \"fleet_id\" IN ('f3')":                        "two conditions",
		"SELECT * FROM alerts_by_fleet_day WHERE (fleet_id) = ('f1')":              "name the fleet",
		"SELECT * FROM alerts_by_fleet_day WHERE fleet_id != 'f1' ALLOW FILTERING": "name the fleet",
	} {
		_, err := Validate(statement, tables, fleets)
		if want == "" {
			require.NoError(t, err, statement)
		} else {
			require.ErrorContains(t, err, want, statement)
		}
	}
}

func TestExpand(t *testing.T) {
	day := time.Date(2026, 3, 30, 12, 0, 0, 0, time.UTC)
	r := Range{From: day, To: day.Add(36 * time.Hour), Interval: 30 * time.Second, MaxDays: 10}
	for statement, want := range map[string]string{
		"day IN ($__days)":                    "day IN ('2026-03-30', '2026-03-31', '2026-04-01')",
		"ts >= $__timeFrom AND ts<=$__timeTo": "ts >= 1774872000000 AND ts<=1775001600000",
		"$__timeFilter(ts) AND x":             "ts >= 1774872000000 AND ts <= 1775001600000 AND x",
		`$__timeFilter( "Ts" )`:               `"Ts" >= 1774872000000 AND "Ts" <= 1775001600000`,
		"floor(ts, $__interval)":              "floor(ts, 30000ms)",
		"$__timeFrom()":                       "1774872000000",
	} {
		got, err := Expand(statement, r)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for statement, want := range map[string]string{
		"$__timefilter(ts)":            "unknown",
		"$__timeFilter(ts;DROP)":       "name the time column",
		"$__timeFilter":                "name the time column",
		strings.Repeat("x", 10<<20):    "at most",
		strings.Repeat("$__days", 9e3): "after macro expansion",
	} {
		_, err := Expand(statement, r)
		require.ErrorContains(t, err, want)
	}
	r.From = time.Unix(0, 0)
	_, err := Expand("$__days", r)
	require.ErrorContains(t, err, "at most 10")
}
