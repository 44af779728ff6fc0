package cql

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzValidate checks that accepted statements only read: a single SELECT of a known table, without anything outside of
// strings that writes or hides something. Each planned statement is valid on its own, for one partition of the same table.
func FuzzValidate(f *testing.F) {
	for _, statement := range []string{
		"SELECT * FROM latest_telemetry_by_device WHERE device_id IN ('a', 'b') LIMIT 5",
		"select a, count(*) from fleet_iot.telemetry_by_device_day where device_id='a' and day in ('2026-01-01', '2026-01-02') group by a;",
		`SELECT "x" FROM "Odd" WHERE "Key" IN ('''', '"', ';')`,
		"SELECT * FROM alerts_by_fleet_day WHERE fleet_id='f' AND day IN ('d') AND severity IN ('HIGH', 'LOW') ALLOW FILTERING",
		"INSERT INTO x (a) VALUES ($__timeFrom)",
		"SELECT toDate(ts), m['k'] FROM latest_telemetry_by_device WHERE device_id='a' AND $__timeFilter(ts) AND floor(ts, $__interval)=1h30m PER PARTITION LIMIT 1",
		"SELECT * FROM telemetry_by_device_day WHERE device_id='a' AND day IN ($__days) AND x > 1 ORDER BY ts DESC",
		"SELECT * FROM latest_telemetry_by_device WHERE device_id='a'; DROP TABLE x",
		"SELECT * FROM latest_telemetry_by_device WHERE device_id='a' /* */ --",
		"SELECT * FROM latest_telemetry_by_device WHERE device_id='a' AND speed_kmh > 1.allow filtering",
		"SELECT * FROM latest_telemetry_by_device WHERE device_id='a' AND d > 1mallow filtering",
		"SELECT * FROM latest_telemetry_by_device WHERE device_id='a' AND d > P0001-01-01T00:00:00and x=0xCAFE",
		"SELECT * FROM latest_telemetry_by_device WHERE device_id='a' AND x=1- -1",
		"SELECT drop FROM latest_telemetry_by_device WHERE device_id='a'",
	} {
		f.Add(statement)
	}
	restricted := rules
	restricted.Fleets = []string{"f"}
	day := time.Date(2026, 3, 30, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, statement string) {
		expanded, err := Expand(statement, Range{From: day, To: day.Add(36 * time.Hour), Interval: time.Minute, MaxDays: 10})
		if err != nil {
			return
		}
		statement = expanded
		plan, err := Validate(statement, tables, rules)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Fatalf("%d bytes are rejected with an error of %d bytes", len(statement), len(err.Error()))
			}
			return
		}
		onlyReads(t, strings.TrimSuffix(strings.TrimRight(statement, " \t\r\n"), ";"))
		if n := len(plan.Statements); n < 1 || n > rules.MaxPartitions {
			t.Fatalf("%q is planned as %d statements", statement, n)
		}
		for _, planned := range plan.Statements {
			onlyReads(t, planned)
			again, err := Validate(planned, tables, rules)
			if err != nil {
				t.Fatalf("%q is planned as %q, which is rejected: %v", statement, planned, err)
			}
			if again.Table != plan.Table || len(again.Statements) != 1 || again.Statements[0] != planned {
				t.Fatalf("%q is planned as %q, which is planned as %q", statement, planned, again.Statements)
			}
		}
		if _, err := Validate(statement, tables, restricted); err == nil {
			if plan.Table != "alerts_by_fleet_day" {
				t.Fatalf("%q reads %s, but only one fleet is allowed", statement, plan.Table)
			}
			if !strings.Contains(statement, "'f'") {
				t.Fatalf("%q names no allowed fleet", statement)
			}
		}
	})
}

// writes are the keywords that begin a statement other than SELECT, or join several. All are reserved words.
var writes = []string{
	"insert", "update", "delete", "truncate", "drop", "create", "alter", "grant", "revoke", "begin", "batch", "apply", "use", "rename",
}

// clause matches text behind a number that the server would read as a keyword.
var clause = regexp.MustCompile(`and|allow|filtering|from|where|group|order|limit|per|in$|contains|like|using`)

func onlyReads(t *testing.T, statement string) {
	t.Helper()
	words := bare(statement)
	if len(words) == 0 || words[0] != "select" || slices.Contains(words[1:], "select") {
		t.Fatalf("not a single SELECT: %q", statement)
	}
	for i, word := range words {
		switch {
		case word == ";" || word == comment || slices.Contains(writes, word):
			t.Fatalf("%q passes in %q", word, statement)
		case word == "allow" && i+1 < len(words) && words[i+1] == "filtering":
			t.Fatalf("ALLOW FILTERING passes in %q", statement)
		case word[0] >= '0' && word[0] <= '9' && clause.MatchString(word):
			t.Fatalf("a number hides a keyword: %q in %q", word, statement)
		}
	}
}
