package csvline

import (
	"encoding/csv"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// FuzzLine holds the parser against encoding/csv, which reads the same line as a file of its own.
func FuzzLine(f *testing.F) {
	for _, line := range []string{
		"bus-1,wuxi,1793527200,31.5,120.5,42,port", `"bus-1","wuxi",1793527200,"31.5",120.5,42,"a, b"`,
		`bus-1,wu"xi,1793527200,31.5,120.5,42,port`, `bus-1,"wuxi,1793527200,31.5,120.5,42,port`, ",,,,,,", "", `"`, `""`,
		"bus-1,wuxi,2026-11-01 10:00:00,1e308,-1e-308,0x1p3,\x00", "\xff", `a,"b` + "\r" + `c",1,2,3,4,5`,
	} {
		f.Add(line)
	}
	fields, err := NewMapping(nil, nil, telemetry.TimeFormat{})
	if err != nil {
		f.Fatal(err)
	}
	cols, err := fields.Header("device_id,fleet_id,timestamp,lat,lon,speed_kmh,zone")
	if err != nil {
		f.Fatal(err)
	}
	reused := NewParser(cols)
	f.Fuzz(func(t *testing.T, line string) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if strings.Contains(line, "\n") {
			t.Skip("a line has no line end in it")
		}
		var got, again telemetry.Record
		rejection := reused.Parse(line, &got)
		fresh := NewParser(cols)
		if r := fresh.Parse(line, &again); (r == nil) != (rejection == nil) || r == nil && again != got {
			t.Fatalf("what a parser read before changes what it reads: %v, %v", rejection, r)
		}
		if rejection != nil {
			if !slices.Contains(telemetry.Reasons, rejection.Reason) || rejection.Remedy == "" {
				t.Fatalf("a rejection without reason or remedy: %+v", rejection)
			}
			return
		}
		if !utf8.ValidString(line) || strings.Contains(line, "\x00") || len(line) > telemetry.MaxRawLen {
			t.Fatal("accepted although it is not UTF-8 or too long")
		}
		values, err := csv.NewReader(strings.NewReader(line)).Read()
		if err != nil {
			t.Fatalf("taken though encoding/csv says: %v", err)
		}
		if len(values) != 7 || got.DeviceID != strings.TrimSpace(values[0]) || got.DeviceID == "" || got.Zone != strings.TrimSpace(values[6]) {
			t.Fatalf("got %+v of %q", got, values)
		}
	})
}
