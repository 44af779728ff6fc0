package app

import (
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/source/csvfile"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// fileFlags say which files are read and how; load and replay share them.
type fileFlags struct {
	Files []string `arg:"" name:"file" optional:"" help:"CSV files or patterns; .gz is unpacked, - is standard input."`

	Map         map[string]string `mapsep:"," placeholder:"FIELD=COLUMN,…" help:"Columns that are named otherwise than their field, for example speed_kmh=velocity."`
	Set         map[string]string `mapsep:"," placeholder:"FIELD=VALUE,…" help:"Fields with one value for all records, for example fleet_id=fleet-001."`
	Timezone    string            `default:"UTC" placeholder:"ZONE" help:"Zone of timestamps that name none, for example Asia/Shanghai."`
	Layout      string            `placeholder:"LAYOUT" help:"Layout of timestamps, as Go writes it: 02.01.2006 15:04:05. RFC 3339, 2006-01-02 15:04:05 and epoch seconds or milliseconds need none."`
	StartAt     string            `xor:"shift" placeholder:"TIME" help:"Shift all timestamps so that the first is at this time, or now."`
	EndAt       string            `xor:"shift" placeholder:"TIME" help:"Shift all timestamps so that the last is at this time, or now."`
	DeriveSpeed bool              `help:"Give records without speed the mean speed since their device's fix before; reads and sorts everything first."`
}

// options turns the flags into those of the source.
func (f *fileFlags) options(p *program) (csvfile.Options, error) {
	if len(f.Files) == 0 {
		return csvfile.Options{}, fmt.Errorf("no file to read: name CSV files, a pattern, or - for standard input")
	}
	files, err := csvfile.Expand(f.Files)
	if err != nil {
		return csvfile.Options{}, err
	}
	zone, err := time.LoadLocation(f.Timezone)
	if err != nil {
		return csvfile.Options{}, fmt.Errorf("--timezone %q: %w; take a name such as UTC, Europe/Berlin or Asia/Shanghai", f.Timezone, err)
	}
	o := csvfile.Options{
		Files: files, Stdin: p.In, Map: f.Map, Set: f.Set, SortDir: p.config.StateDir,
		Times: telemetry.TimeFormat{Layout: f.Layout, Location: zone},
	}
	if f.DeriveSpeed {
		valid := validate.New(p.config.Fleets, 1, nil)
		now := time.Now().UnixMilli()
		o.InEventOrder = new(validate.SpeedEstimator).Apply
		o.Valid = func(r *telemetry.Record) bool { return valid.Valid(r, now) }
	}
	return o, nil
}

// shift reads how far the timestamps are to be moved: it reads all files when they are to be moved at all.
func (f *fileFlags) shift(p *program, o csvfile.Options) (time.Duration, error) {
	flag, value := "--start-at", f.StartAt
	if f.EndAt != "" {
		flag, value = "--end-at", f.EndAt
	}
	if value == "" {
		return 0, nil
	}
	target := time.Now().UnixMilli()
	if value != "now" {
		var err error
		if target, err = (telemetry.TimeFormat{Location: o.Times.Location}).Parse(value); err != nil {
			return 0, fmt.Errorf("%s %q: give now, or a time such as 2026-05-01T12:00:00Z", flag, value)
		}
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
	shift := time.Duration(target-from) * time.Millisecond
	p.logger.WithFields(logrus.Fields{
		"shift": shift.String(), "first": showMs(first + shift.Milliseconds()), "last": showMs(last + shift.Milliseconds()),
	}).Info("shifting timestamps")
	return shift, nil
}

func showMs(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
