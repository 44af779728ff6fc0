package csvfile

import (
	"maps"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// A refused line is taken apart such that it needs none of what the file was read with.
func TestRefusedLinesAreTakenApart(t *testing.T) {
	zone := time.FixedZone("CST", 8*3600)
	mapped := Options{
		Map:   map[string]string{"device_id": "taxi", "timestamp": "when", "lat": "latitude", "lon": "longitude", "speed_kmh": "v"},
		Set:   map[string]string{"fleet_id": "wuxi", "zone": " depot ", "temp_c": ""},
		Times: telemetry.TimeFormat{Layout: "02.01.2006 15:04", Location: zone},
		Shift: time.Hour,
	}
	const mappedHeader = "taxi,when,latitude,longitude,v,note\n"
	for name, c := range map[string]struct {
		o    Options
		file string
		want map[string]string
	}{
		"columns, a layout, a zone, a shift and fixed values": {mapped, mappedHeader + `bus-1,01.11.2026 18:00,31.5," 120.5 ",fast,"a, b"`, map[string]string{
			"device_id": "bus-1", "timestamp": "2026-11-01T11:00:00.000Z", "lat": "31.5", "lon": "120.5", "speed_kmh": "fast", "fleet_id": "wuxi", "zone": "depot",
		}},
		"a time of no layout stays as it is": {mapped, mappedHeader + "bus-1,yesterday,31.5,120.5,,", map[string]string{
			"device_id": "bus-1", "timestamp": "yesterday", "lat": "31.5", "lon": "120.5", "fleet_id": "wuxi", "zone": "depot",
		}},
		"a field is missing": {Options{}, header + "\nbus-1,,1793527200,31.5,120.5", map[string]string{
			"device_id": "bus-1", "timestamp": "2026-11-01T10:00:00.000Z", "lat": "31.5", "lon": "120.5",
		}},
		"a fixed time": {Options{Set: map[string]string{"timestamp": "1793527200"}, Shift: time.Second}, "device_id,fleet_id,lat,lon\nbus-1,wuxi,x,120.5", map[string]string{
			"device_id": "bus-1", "fleet_id": "wuxi", "timestamp": "2026-11-01T10:00:01.000Z", "lat": "x", "lon": "120.5",
		}},
		"too few fields":     {Options{}, header + "\nbus-1,wuxi,1793527200,31.5", nil},
		"an unclosed quote":  {Options{}, header + "\n" + `bus-1,"wuxi,1793527200,31.5,120.5`, nil},
		"no UTF-8":           {Options{}, header + "\nbus-1,wuxi,1793527200,31.5,\xff", nil},
		"longer than a line": {Options{}, header + "\nbus-1,wuxi,1793527200,31.5," + string(make([]byte, telemetry.MaxRawLen)), nil},
	} {
		for how, o := range map[string]func(Options) Options{
			"as read": func(o Options) Options { return o },
			"sorted":  func(o Options) Options { o.InEventOrder, o.SortDir = func(*telemetry.Record) {}, t.TempDir(); return o },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				o := o(c.o)
				o.Files = []string{write(t, "f.csv", c.file+"\n")}
				items, refused := mustRead(t, o)
				if len(items) != 0 || len(refused) != 1 {
					t.Fatalf("%d records, %d refused", len(items), len(refused))
				}
				if got := refused[0].Fields; !maps.Equal(got, c.want) {
					t.Errorf("got  %v\nwant %v", got, c.want)
				}
				trace, err := New(o)
				if err != nil {
					t.Fatal(err)
				}
				for e, err := range trace.Records(t.Context()) {
					if err != nil || !maps.Equal(e.Fields, c.want) {
						t.Errorf("a replay gets %v, %v", e.Fields, err)
					}
				}
			})
		}
	}
}
