package app

import (
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/source/csvfile"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/replay"
)

type replayCommand struct {
	fileFlags
	Speed  float64 `default:"1" help:"Speed relative to the recording."`
	Report string  `enum:"text,json" default:"text" help:"Report format: text or json."`
}

// Run replays the files and prints a report.
func (c *replayCommand) Run(p *program) error {
	options, err := c.options(p)
	if err != nil {
		return err
	}
	if options.Shift, err = c.shift(p, options); err != nil {
		return err
	}
	trace, err := csvfile.New(options)
	if err != nil {
		return err
	}
	first, last, n, err := csvfile.TimeRange(p.stop, options)
	if err != nil {
		return err
	}
	if err := replay.CheckPace(first+options.Shift.Milliseconds(), last+options.Shift.Milliseconds(), time.Now(), c.Speed); n > 0 && err != nil {
		return err
	}
	source, err := replay.New(replay.Options{Trace: trace, Speed: c.Speed, Total: n})
	if err != nil {
		return err
	}
	return p.loadFrom(source, options.Files, c.Report, func() error { return nil })
}
