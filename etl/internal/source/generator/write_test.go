package generator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func simulator(t testing.TB, opts Options) *Simulator {
	t.Helper()
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFilesMatchTheCounts(t *testing.T) {
	type writer func(context.Context, io.Writer, *Simulator) (Counts, error)
	type reader func(string, time.Time) (telemetry.Record, telemetry.Reason)
	for _, tc := range []struct {
		name   string
		write  writer
		read   reader
		header string
	}{
		{"csv", WriteCSV, readCSV, "device_id,fleet_id,timestamp,lat,lon,speed_kmh,heading_deg,battery_pct,temp_c,zone\n"},
		{"ndjson", WriteNDJSON, readJSON, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			counts, err := tc.write(t.Context(), &out, simulator(t, messy))
			if err != nil {
				t.Fatal(err)
			}
			text, ok := strings.CutPrefix(out.String(), tc.header)
			if !ok {
				t.Fatalf("file begins with %.100q, want %q", out.String(), tc.header)
			}
			lines := strings.SplitAfter(text, "\n")
			if last := len(lines) - 1; lines[last] != "" {
				t.Fatalf("file ends with %q, not with a line end", lines[last])
			} else {
				lines = lines[:last]
			}
			if len(lines) != counts.Lines() {
				t.Errorf("%d lines, counts say %d", len(lines), counts.Lines())
			}

			all := run(t, messy)
			distinct := map[telemetry.Record]bool{}
			broken := map[telemetry.Reason]int{}
			duplicates := 0
			for i, line := range lines {
				r, reason := tc.read(line, monday.Add(2*time.Hour))
				switch {
				case reason != "":
					broken[reason]++
				case r != all[i].Record:
					t.Fatalf("line %d reads as\n%+v, want\n%+v", i+1, r, all[i].Record)
				case distinct[r]:
					duplicates++
				default:
					distinct[r] = true
				}
			}
			if len(distinct) != counts.Good || duplicates != counts.Duplicate || !maps.Equal(broken, counts.Broken) {
				t.Errorf("file has %d good, %d duplicate and broken %v; counts say %+v",
					len(distinct), duplicates, broken, counts)
			}
			if counts.Good != messy.Records || counts.Late == 0 {
				t.Errorf("counts %+v, want %d good and some of them late", counts, messy.Records)
			}
		})
	}
}

func TestTextAndNumberAgree(t *testing.T) {
	e := Emission{Record: telemetry.Record{
		DeviceID: "vehicle-0001", FleetID: "fleet-001", TimeMs: monday.UnixMilli() + 7, Lat: 52.4, Lon: -9.123456,
		SpeedKmh: telemetry.Some(0.0), TempC: telemetry.Some(-18.5), BatteryPct: telemetry.Some[int32](7),
	}}
	for _, tc := range []struct {
		name, want string
		got        []byte
	}{
		{"csv", `vehicle-0001,fleet-001,2026-11-02T06:00:00.007Z,52.4,-9.123456,0,,7,-18.5,`,
			appendCSV(nil, &e)},
		{"json", `{"device_id":"vehicle-0001","fleet_id":"fleet-001","timestamp":"2026-11-02T06:00:00.007Z",` +
			`"lat":52.4,"lon":-9.123456,"speed_kmh":0,"battery_pct":7,"temp_c":-18.5}`, appendJSON(nil, &e)},
		{"empty json", `{"timestamp":"1970-01-01T00:00:00.000Z","lat":0,"lon":0}`, appendJSON(nil, &Emission{})},
	} {
		if string(tc.got) != tc.want {
			t.Errorf("%s is\n%s, want\n%s", tc.name, tc.got, tc.want)
		}
	}
}

func TestWritingStopsWithItsContext(t *testing.T) {
	endless := messy
	endless.Records = 0
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	counts, err := WriteCSV(ctx, writerFunc(func(p []byte) (int, error) {
		if out.Len() > 1<<20 {
			cancel()
		}
		return out.Write(p)
	}), simulator(t, endless))
	if !errors.Is(err, context.Canceled) || counts.Good == 0 {
		t.Errorf("counts %+v, error %v, want some records and the context's error", counts, err)
	}
}

func TestFailingWriter(t *testing.T) {
	full := errors.New("no space left on device")
	_, err := WriteNDJSON(t.Context(), writerFunc(func([]byte) (int, error) { return 0, full }), simulator(t, messy))
	if !errors.Is(err, full) || !strings.HasPrefix(err.Error(), "write after ") {
		t.Errorf("error %v, want it to say where the writer failed", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestFieldsAreThoseOfTelemetry(t *testing.T) {
	e := Emission{Record: telemetry.Record{
		DeviceID: "d", FleetID: "f", Zone: "z", SpeedKmh: telemetry.Some(1.0), HeadingDeg: telemetry.Some(1.0),
		TempC: telemetry.Some(1.0), BatteryPct: telemetry.Some[int32](1),
	}}
	d := json.NewDecoder(bytes.NewReader(appendJSON(nil, &e)))
	var keys []string
	for token, err := d.Token(); err == nil; token, err = d.Token() {
		if key, ok := token.(string); ok && slices.Contains(fields, key) {
			keys = append(keys, key)
		}
	}
	if !slices.Equal(keys, fields) {
		t.Errorf("JSON has the keys %v, want %v", keys, fields)
	}
	if all := append(slices.Clone(fields), telemetry.FieldAccuracy); !slices.Equal(all, telemetry.Fields) {
		t.Errorf("fields with the accuracy are %v, want %v", all, telemetry.Fields)
	}
}
