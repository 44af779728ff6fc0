package csvfile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fleettracing/fleet-tracing/etl/internal/csvline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Every kind of broken line, between two good ones that it must not cost.
func TestBrokenLines(t *testing.T) {
	const good = "bus-1,wuxi,1793527200,31.5,120.5,42,port"
	long := "bus-1,wuxi,1793527200,31.5,120.5,42," + strings.Repeat("x", telemetry.MaxRawLen)
	huge := "bus-1,wuxi,1793527200,31.5,120.5,42," + strings.Repeat("x", 3*csvline.BlockBytes)
	for _, c := range []struct {
		name, line string
		reason     telemetry.Reason
		field      string
		says       string
	}{
		{"stray quote", `bus-1,wu"xi,1793527200,31.5,120.5,42,port`, telemetry.Malformed, "", "stray quote at byte 9"},
		{"quote after a space", `bus-1, "wuxi",1793527200,31.5,120.5,42,port`, telemetry.Malformed, "", "stray quote at byte 8"},
		{"unclosed quote", `bus-1,"wuxi,1793527200,31.5,120.5,42,port`, telemetry.Malformed, "", "unclosed quote"},
		{"text behind a quote", `bus-1,"wu"xi,1793527200,31.5,120.5,42,port`, telemetry.Malformed, "", "quote at byte 10"},
		{"too few fields", "bus-1,wuxi,1793527200,31.5,120.5,42", telemetry.Malformed, "", "the line has 6 fields, the header has 7"},
		{"too many fields", good + ",", telemetry.Malformed, "", "the line has 8 fields, the header has 7"},
		{"too many quoted fields", good + `,"a"`, telemetry.Malformed, "", "the line has 8 fields, the header has 7"},
		{"one word", "?", telemetry.Malformed, "", "the line has 1 fields"},
		{"not UTF-8", "bus-1,wuxi,1793527200,31.5,120.5,42,\xff", telemetry.Malformed, "", "not UTF-8 text"},
		{"NUL", "bus-1,wuxi,1793527200,31.5,120.5,42,\x00", telemetry.Malformed, "", "not UTF-8 text"},
		{"longer than a record", long, telemetry.TooLarge, "", "longer than 65536 bytes"},
		{"longer than a block", huge, telemetry.TooLarge, "", "longer than 65536 bytes"},
		{"no device", ",wuxi,1793527200,31.5,120.5,42,port", telemetry.MissingField, "device_id", "fill the column"},
		{"no fleet", "bus-1,  ,1793527200,31.5,120.5,42,port", telemetry.MissingField, "fleet_id", "--set"},
		{"no time", `bus-1,wuxi,"",31.5,120.5,42,port`, telemetry.MissingField, "timestamp", "timestamp"},
		{"no latitude", "bus-1,wuxi,1793527200,,120.5,42,port", telemetry.MissingField, "lat", "lat"},
		{"no longitude", "bus-1,wuxi,1793527200,31.5,\t,42,port", telemetry.MissingField, "lon", "lon"},
		{"no such time", "bus-1,wuxi,2026-13-01T00:00:00Z,31.5,120.5,42,port", telemetry.BadTimestamp, "timestamp", `"2026-13-01T00:00:00Z"`},
		{"no number", "bus-1,wuxi,1793527200,31.5N,120.5,42,port", telemetry.Malformed, "lat", `"31.5N"`},
		{"not finite", "bus-1,wuxi,1793527200,31.5,NaN,42,port", telemetry.Malformed, "lon", `"NaN"`},
		{"optional field is not a number", "bus-1,wuxi,1793527200,31.5,120.5,fast,port", telemetry.Malformed, "speed_kmh", `"fast"`},
	} {
		for _, end := range []string{"\n", "\r\n"} {
			t.Run(fmt.Sprintf("%s %q", c.name, end), func(t *testing.T) {
				file := strings.Join([]string{header + ",speed_kmh,zone", good, "", c.line, " \t", good, ""}, end)
				items, refused := mustRead(t, Options{Files: []string{write(t, "f.csv", file)}})
				if len(items) != 2 || items[0].Position != 2 || items[1].Position != 6 {
					t.Fatalf("neighbors: %+v", items)
				}
				if items[0].Raw != good || items[1].Raw != good {
					t.Errorf("raw lines %q, %q", items[0].Raw, items[1].Raw)
				}
				if len(refused) != 1 {
					t.Fatalf("%d lines refused", len(refused))
				}
				r := refused[0]
				if r.Position != 4 || r.Reason != c.reason || r.Field != c.field {
					t.Errorf("line %d, reason %s, field %q; want line 4, %s, %q", r.Position, r.Reason, r.Field, c.reason, c.field)
				}
				want := c.line
				if c.reason == telemetry.TooLarge {
					want = want[:telemetry.MaxExcerpt]
				}
				if r.Raw != want {
					t.Errorf("raw has %d bytes, want %d", len(r.Raw), len(want))
				}
				mentions(t, r.Rejection, c.says)
			})
		}
	}
}

func TestQuotedFields(t *testing.T) {
	file := header + ",zone,note\n" +
		`"bus-1","wuxi","1793527200","31.5","120.5","port","a, b"` + "\n" +
		`bus-2,wuxi,1793527200,31.5,120.5,"po""rt",""` + "\n" +
		`bus-3,wuxi,1793527200,31.5,120.5,port,plain` + "\n" +
		`bus-4,wuxi,1793527200,31.5,120.5,"unclosed,` + "\n" +
		`"bus-5",wuxi,1793527200,31.5,120.5,port,"last"`
	items, refused := mustRead(t, Options{Files: []string{write(t, "f.csv", file)}})
	var got []string
	for _, item := range items {
		got = append(got, fmt.Sprint(item.Position, " ", item.DeviceID, " ", item.Zone))
	}
	if want := []string{"2 bus-1 port", `3 bus-2 po"rt`, "4 bus-3 port", "6 bus-5 port"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(refused) != 1 || refused[0].Position != 5 {
		t.Errorf("refused %+v", refused)
	}
}
