package app

import (
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/csvfile"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// fileFlags are the flags of load and replay that select files and their format.
type fileFlags struct {
	Files []string `arg:"" name:"file" optional:"" help:"CSV files or patterns; .gz is decompressed, - is standard input."`

	Map         map[string]string `mapsep:"," placeholder:"FIELD=COLUMN,…" help:"Columns whose name differs from the field, for example speed_kmh=velocity."`
	Set         map[string]string `mapsep:"," placeholder:"FIELD=VALUE,…" help:"Constant fields, for example fleet_id=fleet-001."`
	Timezone    string            `default:"UTC" placeholder:"ZONE" help:"Time zone of timestamps without one, for example Asia/Shanghai."`
	Layout      string            `placeholder:"LAYOUT" help:"Go layout of timestamps, for example 02.01.2006 15:04:05. RFC 3339, 2006-01-02 15:04:05 and epoch seconds or milliseconds are recognized."`
	StartAt     string            `xor:"shift" placeholder:"TIME" help:"Shift all timestamps so that the first is at this time, now, or a duration before now: 2h."`
	EndAt       string            `xor:"shift" placeholder:"TIME" help:"Shift all timestamps so that the last is at this time, now, or a duration before now: 2h."`
	DeriveSpeed bool              `help:"Give records without speed the mean speed since the previous position of their device; reads and sorts all files first."`
}

// options returns the options of the source.
func (f *fileFlags) options(p *program) (csvfile.Options, error) {
	files, err := csvfile.Expand(f.Files)
	if err != nil {
		return csvfile.Options{}, err
	}
	zone, err := time.LoadLocation(f.Timezone)
	if err != nil {
		return csvfile.Options{}, fmt.Errorf("--timezone %q: %w; use a name such as UTC, Europe/Berlin or Asia/Shanghai", f.Timezone, err)
	}
	o := csvfile.Options{
		Files: files, Stdin: p.In, Map: f.Map, Set: f.Set, SortDir: p.config.StateDir, DiskNote: p.diskOutage().Note,
		Times: telemetry.TimeFormat{Layout: f.Layout, Location: zone},
	}
	if f.DeriveSpeed {
		bounds, now := validate.NewBounds(p.config.Fleets), time.Now().UnixMilli()
		o.InEventOrder = new(validate.SpeedEstimator).Apply
		o.Valid = func(r *telemetry.Record) bool { return bounds.Check(r, now) == nil }
	}
	return o, nil
}

// diskOutage logs while the disk of ETL_STATE_DIR is full.
func (p *program) diskOutage() *ratelog.Outage {
	return ratelog.New(p.logger.WithField("directory", p.config.StateDir), time.Now, ratelog.Interval, ratelog.Messages{
		Down: "disk full, waiting: free disk space", Up: "disk has room again",
	})
}

// shift returns how far to move the timestamps. It reads all files if a flag asks for a shift.
func (f *fileFlags) shift(p *program, o csvfile.Options) (time.Duration, error) {
	flag, value := "--start-at", f.StartAt
	if f.EndAt != "" {
		flag, value = "--end-at", f.EndAt
	}
	if value == "" {
		return 0, nil
	}
	target, err := parseTime(flag, value, o.Times.Location)
	if err != nil {
		return 0, err
	}
	first, last, n, err := csvfile.TimeRange(p.stop, o)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", flag, err)
	}
	if n == 0 {
		return 0, nil
	}
	from := first
	if f.EndAt != "" {
		from = last
	}
	shift := time.Duration(target.UnixMilli()-from) * time.Millisecond
	p.logger.WithFields(logrus.Fields{
		"shift": shift.String(), "first": showMs(first + shift.Milliseconds()), "last": showMs(last + shift.Milliseconds()),
	}).Info("shifting timestamps")
	return shift, nil
}

// parseTime parses the value of a flag: a time, now, or a duration before now. A time without a zone is in the location.
// An empty value is the zero time.
func parseTime(flag, value string, location *time.Location) (time.Time, error) {
	switch ago, err := time.ParseDuration(value); {
	case value == "":
		return time.Time{}, nil
	case value == "now":
		return time.Now(), nil
	case err == nil && ago >= 0:
		return time.Now().Add(-ago), nil
	}
	ms, err := (telemetry.TimeFormat{Location: location}).Parse(value)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s %q: give a time such as 2026-05-01T12:00:00Z, now, or a duration before now such as 2h", flag, value)
	}
	return time.UnixMilli(ms), nil
}

func showMs(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
