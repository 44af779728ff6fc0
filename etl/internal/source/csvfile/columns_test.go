package csvfile

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestColumns(t *testing.T) {
	at := time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC).UnixMilli()
	plain := telemetry.Record{DeviceID: "bus-1", FleetID: "wuxi", TimeMs: at, Lat: 31.5, Lon: 120.5}
	full := plain
	full.Zone = "port"
	full.SpeedKmh, full.HeadingDeg = telemetry.Some(50.5), telemetry.Some(90.0)
	full.TempC, full.BatteryPct = telemetry.Some(-1.5), telemetry.Some[int32](80)
	full.AccuracyM = telemetry.Some(4.5)
	zoned := plain
	zoned.Zone = "depot"
	for _, c := range []struct {
		name string
		file string
		o    Options
		want telemetry.Record
	}{
		{"every field in another order", "accuracy_m,zone,temp_c,battery_pct,heading_deg,speed_kmh,lon,lat,timestamp,fleet_id,device_id\n" +
			"4.5,port,-1.5,79.6,90,50.5,120.5,31.5,2026-11-01T10:00:00Z,wuxi,bus-1", Options{}, full},
		{"spaces", " device_id ,\tfleet_id, timestamp ,lat,lon , zone\n bus-1 ,wuxi , 1793527200, 31.5,120.5 , ", Options{}, plain},
		{"unknown and nameless columns", "device_id,extra,fleet_id,timestamp,lat,lon,,\nbus-1,?,wuxi,1793527200000,31.5,120.5,,", Options{}, plain},
		{"byte order mark", "\ufeffdevice_id,fleet_id,timestamp,lat,lon\nbus-1,wuxi,1793527200,31.5,120.5", Options{}, plain},
		{"byte order mark and quotes", "\ufeff\"device_id\",\"fleet_id\",timestamp,lat,lon\n\"bus-1\",wuxi,1793527200,31.5,120.5", Options{}, plain},
		{"CRLF", "device_id,fleet_id,timestamp,lat,lon\r\nbus-1,wuxi,1793527200,31.5,120.5\r\n", Options{}, plain},
		{"mapped and set", "taxi,when,latitude,longitude\nbus-1,2026-11-01 18:00:00,31.5,120.5", Options{
			Map:   map[string]string{"device_id": "taxi", "timestamp": "when", "lat": "latitude", "lon": "longitude"},
			Set:   map[string]string{"fleet_id": "wuxi", "zone": "depot"},
			Times: telemetry.TimeFormat{Location: time.FixedZone("CST", 8*3600)},
		}, zoned},
		{"a fixed value takes the column's place", header + ",zone,temp_c\nbus-1,rome,1793527200,31.5,120.5,port,hot",
			Options{Set: map[string]string{"fleet_id": "wuxi", "zone": "depot", "temp_c": ""}}, zoned},
		{"a mapped column takes the place of the field's own", header + ",vehicle\nbus-2,wuxi,1793527200,31.5,120.5,bus-1",
			Options{Map: map[string]string{"device_id": "vehicle"}}, plain},
		{"one column for two fields", "bus,timestamp,lat,lon\nwuxi,1793527200,31.5,120.5",
			Options{Map: map[string]string{"device_id": "bus", "fleet_id": "bus"}},
			telemetry.Record{DeviceID: "wuxi", FleetID: "wuxi", TimeMs: at, Lat: 31.5, Lon: 120.5}},
		{"no accuracy in its column", header + ",accuracy_m\nbus-1,wuxi,1793527200,31.5,120.5,", Options{}, plain},
		{"shifted", header + "\nbus-1,wuxi,1793523600,31.5,120.5", Options{Shift: time.Hour}, plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Files = []string{write(t, "f.csv", c.file)}
			items, refused := mustRead(t, c.o)
			if len(items) != 1 || len(refused) > 0 {
				t.Fatalf("%d records, refused %v", len(items), refused)
			}
			if got := items[0].Record; !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			if items[0].Position != 2 {
				t.Errorf("position %d, want line 2", items[0].Position)
			}
		})
	}
}

func TestWrongColumns(t *testing.T) {
	for _, c := range []struct {
		name string
		file string
		o    Options
		want []string
	}{
		{"empty file", "", Options{}, []string{"read file ", "f.csv: it is empty", "name the columns"}},
		{"only a byte order mark", "\ufeff", Options{}, []string{"f.csv line 1: the header is blank"}},
		{"blank first line", "\n" + header + "\n", Options{}, []string{"f.csv line 1: the header is blank", "first line"}},
		{"missing columns", "device_id,timestamp,lat\n", Options{}, []string{
			"f.csv line 1: no column for fleet_id, lon", "--map FIELD=COLUMN", "--set FIELD=VALUE", "device_id, timestamp, lat"}},
		{"no header", "bus-1,wuxi,1793527200,31.5,120.5\n", Options{}, []string{"no column for device_id, fleet_id, timestamp, lat, lon", "the header has bus-1, wuxi"}},
		{"another separator", "device_id;fleet_id;timestamp;lat;lon\n", Options{}, []string{"no column for", "the header has device_id;fleet_id"}},
		{"mapped to a missing column", header + "\n", Options{Map: map[string]string{"lon": "longitude"}}, []string{
			"f.csv line 1: --map lon=longitude: no such column", "device_id, fleet_id, timestamp, lat, lon"}},
		{"column twice", header + ",lat\n", Options{}, []string{`f.csv line 1: column "lat" appears twice in the header`, "rename"}},
		{"quote in the header", `device_id,"fleet_id,timestamp,lat,lon` + "\n", Options{}, []string{"f.csv line 1: header: wrong or unclosed quote"}},
		{"UTF-16", "\xff\xfed\x00e\x00v\x00\n\x00", Options{}, []string{"f.csv line 1: the header is not UTF-8 text", "save the file as UTF-8"}},
		{"long first line", strings.Repeat("x", 200_000), Options{}, []string{"f.csv line 1: the header is longer than 65536 bytes"}},
		{"unknown field mapped", header, Options{Map: map[string]string{"lng": "lon"}}, []string{
			`--map lng=lon: unknown field "lng"`, "device_id, fleet_id, timestamp, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone, accuracy_m"}},
		{"unknown field set", header, Options{Set: map[string]string{"fleet": "wuxi"}}, []string{`--set fleet=wuxi: unknown field "fleet"`, "fleet_id"}},
		{"mapped to nothing", header, Options{Map: map[string]string{"lon": " "}}, []string{"--map lon= : the column name is missing"}},
		{"mapped and set", header, Options{Map: map[string]string{"zone": "area"}, Set: map[string]string{"zone": "port"}},
			[]string{"--map zone=area: zone has a constant value too, --set zone=port", "use only one of them"}},
		{"set to no number", header, Options{Set: map[string]string{"lat": "north"}}, []string{"--set lat=north: malformed", "decimal number"}},
		{"set to no time", header, Options{Set: map[string]string{"timestamp": "now"}}, []string{"--set timestamp=now: bad_timestamp"}},
		{"set to nothing", header, Options{Set: map[string]string{"fleet_id": ""}}, []string{"--set fleet_id=: the value is missing, and fleet_id is required", "set a value"}},
		{"set to an invalid name", header, Options{Set: map[string]string{"fleet_id": "my fleet"}}, []string{"--set fleet_id=my fleet: every record would be rejected", "A-Za-z0-9._:-"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, "f.csv", c.file)
			c.o.Files = []string{path}
			_, err := New(c.o)
			mentions(t, err, c.want...)

			// Standard input says the same, when it is read and before any record flows.
			c.o.Files, c.o.Stdin = []string{write(t, "good.csv", fileOf(3)), Stdin}, strings.NewReader(c.file)
			if len(c.o.Map)+len(c.o.Set) > 0 {
				return
			}
			items, _, err := read(t, c.o)
			for i, part := range c.want {
				c.want[i] = strings.TrimPrefix(part, "f.csv")
			}
			mentions(t, err, append(c.want[1:], "read standard input")...)
			if len(items) > 0 {
				t.Errorf("%d records flowed before the header was looked at", len(items))
			}
		})
	}
}

func TestFilesAreCheckedBeforeAnyRecordFlows(t *testing.T) {
	good, bad := write(t, "good.csv", fileOf(3)), write(t, "bad.csv", "a,b\n")
	_, err := New(Options{Files: []string{good, bad}})
	mentions(t, err, "bad.csv line 1: no column")
	_, err = New(Options{Files: []string{good + "x"}})
	mentions(t, err, "read file "+good+"x: no such file")
	_, err = New(Options{Files: []string{Stdin}})
	mentions(t, err, "read standard input: there is none")
}
