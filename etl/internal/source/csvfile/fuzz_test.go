package csvfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// FuzzFile holds that nothing of a file is lost: every line behind the header that is not blank is a record or rejected
// with a reason, under its own number and as it stands in the file, in the order of the file or in that of the events.
func FuzzFile(f *testing.F) {
	const line = "bus-1,wuxi,1793527200,31.5,120.5\n"
	for _, text := range []string{
		header + "\n" + line + line, header + "\r\n" + strings.ReplaceAll(line, "\n", "\r\n") + "\r\n \t\r\nbus,", "\ufeff" + header + ",zone,accuracy_m\n" + `"b ""1""",wuxi,2026-11-01 10:00:00,1,1,"a, b",3` + "\nx",
		header + "\n" + line + "\"unclosed," + line + line, header + "\n\n\nbus-2,wuxi,99999999999999999,1e308,-1e-308\nbus-1,wuxi,-5,NaN,0x10\n\x00\n\xff\n",
		"lat,lon,timestamp,fleet_id,device_id,speed_kmh,battery_pct\n1,2,3,a,b,,101\n", "device_id\n", "", "\n", "\x1f\x8b\x08", header + "," + header,
		header + "\n" + strings.Repeat("x", 300_000) + "\n" + line,
	} {
		f.Add([]byte(text), int64(0))
		f.Add([]byte(text), int64(-86_400_000))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte, shiftMs int64) {
		if bytes.HasPrefix(text, gzipMagic) {
			t.Skip("gzip")
		}
		shiftMs %= 1_000_000_000_000
		o := Options{Files: []string{write(t, filepath.Join(dir, "f.csv"), string(text))}, Shift: time.Duration(shiftMs) * time.Millisecond}
		items, refused, err := read(t, o)
		if err != nil {
			if !strings.Contains(err.Error(), "line 1") && !strings.Contains(err.Error(), "it is empty") || len(err.Error()) > 2000 {
				t.Fatalf("an error that is not of the header: %v", err)
			}
			return
		}
		lines := strings.Split(string(text), "\n")
		at := func(position int64) string { return strings.TrimSuffix(lines[position-1], "\r") }
		want := map[int64]bool{}
		for i, l := range lines[1:] {
			if strings.TrimSpace(l) != "" {
				want[int64(i)+2] = true
			}
		}
		for _, item := range items {
			checkItem(t, &item, at(item.Position), want, shiftMs)
		}
		for _, r := range refused {
			checkRefused(t, &r, at(r.Position), want)
		}
		if len(want) > 0 {
			t.Fatalf("lines are lost: %v", want)
		}
		o.InEventOrder, o.SortDir = func(*telemetry.Record) {}, dir
		sorted, refusedToo, err := read(t, o)
		if err != nil {
			t.Fatal(err)
		}
		byPlace := func(a, b pipeline.Item) int { return int(a.Position - b.Position) }
		if slices.SortFunc(sorted, byPlace); len(refusedToo) != len(refused) || !slices.Equal(sorted, items) {
			t.Fatalf("in event order there are other records: %v, %v", sorted, items)
		}
	})
}

func checkItem(t *testing.T, item *pipeline.Item, line string, want map[int64]bool, shiftMs int64) {
	t.Helper()
	if !want[item.Position] || item.Raw != line {
		t.Fatalf("line %d is given twice, or is %q", item.Position, item.Raw)
	}
	delete(want, item.Position)
	for _, v := range []float64{item.Lat, item.Lon, item.SpeedKmh.Value, item.HeadingDeg.Value, item.TempC.Value, item.AccuracyM.Value} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Fatalf("not finite: %+v", item.Record)
		}
	}
	if ms := item.TimeMs; ms > -100_000_000_000 && ms < 100_000_000_000 || len(item.Raw) > telemetry.MaxJSON/8 {
		return
	}
	text, err := json.Marshal(pipeline.FieldsOf(&item.Record))
	if err != nil {
		t.Fatal(err)
	}
	if back, rejection := telemetry.ParseJSON(text, ""); rejection != nil || back != item.Record {
		t.Fatalf("%+v is read again as %+v, %v", item.Record, back, rejection)
	}
}

// checkRefused holds also that what a dead letter has of each field is rejected for the same reason when it is reprocessed.
func checkRefused(t *testing.T, r *pipeline.Rejected, line string, want map[int64]bool) {
	t.Helper()
	if r.Reason == telemetry.TooLarge {
		line = line[:telemetry.MaxExcerpt]
	}
	if !want[r.Position] || r.Raw != line {
		t.Fatalf("line %d is given twice, or is %q", r.Position, r.Raw)
	}
	delete(want, r.Position)
	if !slices.Contains(telemetry.Reasons, r.Reason) || r.Remedy == "" || len(r.Error()) > 1000 {
		t.Fatalf("refused with %v", r.Rejection)
	}
	if r.Fields == nil {
		return
	}
	text, err := json.Marshal(r.Fields)
	if err != nil {
		t.Fatal(err)
	}
	if _, again := telemetry.ParseJSON(text, ""); len(text) <= telemetry.MaxJSON && (again == nil || again.Reason != r.Reason) {
		t.Fatalf("refused as %v, and replayed as %v: %s", r.Rejection, again, text)
	}
}

// FuzzCheckpoint holds that a checkpoint, whatever is in it, is an error that names it, or leads to a place from which a
// run reads whole lines to the end.
func FuzzCheckpoint(f *testing.F) {
	dir := f.TempDir()
	path := write(f, filepath.Join(dir, "f.csv"), fileOf(5))
	o := Options{Files: []string{path}}
	c, err := OpenCheckpoint(f.Context(), dir, o)
	if err != nil {
		f.Fatal(err)
	}
	c.state.Files[0].Offset, c.state.Files[0].Line = int64(len(fileOf(2))), 3
	text, err := json.Marshal(&c.state)
	if err != nil {
		f.Fatal(err)
	}
	abs, size := c.state.Files[0].Path, c.state.Files[0].Size
	const form = `{"version":2,"shift_ms":%s,"files":[{"path":%q,"size":%d,"sha256":%q,"offset":%s,"line":%s,"done":%s}]}`
	for _, v := range [][4]string{{"0", string(rune('0')), "0", "false"}, {"-5", "36", "1", "false"}, {"0", "9223372036854775807", "3", "true"}, {"0", "-1", "0", "false"}, {"1", "37", "1", "false"}} {
		f.Add(v[0], v[1], v[2], v[3])
	}
	f.Add("0", fmt.Sprint(c.state.Files[0].Offset), "3", "false")
	if !bytes.Contains(text, []byte(`"line":3`)) {
		f.Fatalf("%s", text)
	}
	f.Fuzz(func(t *testing.T, shift, offset, line, done string) {
		var sum []byte // the right one, so that the place is not rejected for it
		if n, err := strconv.ParseInt(offset, 10, 64); err == nil {
			of := sha256.Sum256([]byte(fileOf(5))[:min(max(n, 0), size)])
			sum = of[:]
		}
		stored := base64.StdEncoding.EncodeToString(sum)
		if err := os.WriteFile(c.path, fmt.Appendf(nil, form, shift, abs, size, stored, offset, line, done), 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := OpenCheckpoint(t.Context(), dir, o)
		if err != nil {
			mentions(t, err, c.path)
			return
		}
		o := o
		o.Checkpoint = found
		items, refused, err := read(t, o)
		defer found.Close()
		if err != nil {
			mentions(t, err, "f.csv")
			return
		}
		if len(refused) > 0 {
			t.Fatalf("half a line is read from offset %s: %q", offset, refused[0].Raw)
		}
		for i, item := range items {
			if n := len(items) - i; item.Raw != lineOf(5+2-n) {
				t.Fatalf("%q is not a line of the file, or not in its place", item.Raw)
			}
		}
	})
}
