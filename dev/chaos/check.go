package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// checkStored compares what is stored, read at the level ALL, with what was acknowledged, record by record.
func (t *trial) checkStored(ctx context.Context) error {
	err := within(ctx, t.patience(drainedWithin), "the spool is empty", func() bool { return t.metric("fleet_etl_spool_entries") == 0 })
	if err != nil {
		return err
	}
	store, err := cassandra.Open(ctx, t.store, quiet(), nil)
	if err != nil {
		return err
	}
	defer store.Close()

	acknowledged := map[string]map[int64]record{}
	for _, r := range t.load.accepted {
		if acknowledged[r.device] == nil {
			acknowledged[r.device] = map[int64]record{}
		}
		acknowledged[r.device][r.ms] = r
	}
	refused := map[string]map[int64]bool{}
	for _, r := range t.load.refused {
		if refused[r.device] == nil {
			refused[r.device] = map[int64]bool{}
		}
		refused[r.device][r.ms] = true
	}
	var example string
	for device, records := range acknowledged {
		t.Acknowledged += len(records)
		rows, err := t.history(ctx, store, device)
		if err != nil {
			return err
		}
		t.Stored += len(rows)
		for _, row := range rows {
			sent, known := records[row.Ts.UnixMilli()]
			delete(records, row.Ts.UnixMilli())
			switch {
			case !known && refused[device][row.Ts.UnixMilli()]: // replayed from the dead letters
				delete(refused[device], row.Ts.UnixMilli())
				t.Acknowledged++
			case !known:
				t.Unknown++
				example = fmt.Sprintf("%s of %s was never sent", device, row.Ts)
			case !sent.is(row):
				t.Differing++
				example = fmt.Sprintf("%+v was sent, %+v is stored", sent, row)
			}
		}
		for ms, r := range records {
			if ms >= t.keptFromMs {
				t.Missing++
				example = fmt.Sprintf("%+v is missing", r)
			}
		}
	}
	for device, left := range refused {
		for ms := range left {
			t.Missing++
			example = fmt.Sprintf("%s of %d was refused, and never replayed", device, ms)
		}
	}
	t.Refused, t.Resent = len(t.load.refused), t.load.resent
	if t.Acknowledged == 0 {
		return errors.New("nothing was acknowledged")
	}
	if t.Missing+t.Differing+t.Unknown > 0 {
		return fmt.Errorf("of %d acknowledged records %d are missing and %d differ, and %d were never sent: %s", t.Acknowledged, t.Missing, t.Differing, t.Unknown, example)
	}
	return nil
}

// history is the stored records of a device, at the level ALL. A node that has only just returned may need a second try.
func (t *trial) history(ctx context.Context, store *cassandra.Store, device string) (rows []cassandra.Telemetry, err error) {
	for try := range 5 {
		page, err := store.History(ctx, cassandra.HistoryQuery{DeviceID: device, From: time.Now().Add(-48 * time.Hour), To: time.Now().Add(time.Hour)})
		if err == nil {
			return page.Rows, nil
		}
		if try == 4 {
			return nil, fmt.Errorf("read at ALL: %w", err)
		}
		if err := process.Sleep(ctx, 3*time.Second); err != nil {
			return nil, err
		}
	}
	return rows, err
}

func (r record) is(row cassandra.Telemetry) bool {
	return row.Lat == r.lat && row.Lon == r.lon && row.SpeedKmh != nil && *row.SpeedKmh == r.speed &&
		row.BatteryPct != nil && int(*row.BatteryPct) == r.battery && row.TempC != nil && *row.TempC == r.temp
}

// verified is what fleet-etl verify says.
type verified struct {
	Fixes, Trips, Alerts, Hours, Moving int
	Differences                         []json.RawMessage
}

// checkDerived waits until verify finds no difference.
func (t *trial) checkDerived(ctx context.Context, stopped time.Time) error {
	if t.fix {
		v, err := t.verify(ctx, t.load.fleet)
		if err != nil {
			return err
		}
		t.note("verify finds %d differences, and derives anew", len(v.Differences))
		if _, err := t.verify(ctx, t.load.fleet, "--fix"); err != nil {
			return err
		}
	}
	v, err := t.settled(ctx, t.load.fleet)
	if err != nil {
		return err
	}
	t.Fixes, t.Differences = v.Fixes, len(v.Differences)
	t.Derived = time.Since(stopped).Seconds()
	switch {
	case len(v.Differences) > 0:
		return fmt.Errorf("verify finds %d differences %s after the last record, such as %s", len(v.Differences), time.Since(stopped).Round(time.Second), v.Differences[0])
	case v.Fixes != t.Stored:
		return fmt.Errorf("verify saw %d fixes, and %d are stored", v.Fixes, t.Stored)
	case v.Moving > 0:
		return fmt.Errorf("verify left out what is on its way of %d devices", v.Moving)
	case v.Alerts == 0 || v.Hours == 0: // a trip may take longer
		return fmt.Errorf("nothing is derived: %d alerts, %d hours", v.Alerts, v.Hours)
	}
	return nil
}

// settled is what verify says once it finds no difference, or when patience with it ends.
func (p *platform) settled(ctx context.Context, fleet string) (v verified, err error) {
	for end := time.Now().Add(p.patience(derivedWithin)); ; {
		if v, err = p.verify(ctx, fleet); err != nil || len(v.Differences) == 0 || time.Now().After(end) {
			return v, err
		}
		if err := process.Sleep(ctx, 2*time.Second); err != nil {
			return v, err
		}
	}
}

func (p *platform) verify(ctx context.Context, fleet string, flags ...string) (v verified, err error) {
	from := time.Now().UTC().Add(-24 * time.Hour).Format(time.DateOnly)
	out, err := p.run(ctx, append([]string{"verify", "--fleet", fleet, "--from", from, "--report", "json"}, flags...)...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 2 {
		err = nil // there are differences; the report stands before what it complains of
	}
	if err != nil {
		return v, fmt.Errorf("verify: %w:\n%s", err, process.Indent(process.LastLines(out, 10)))
	}
	if err := json.NewDecoder(bytes.NewReader(out)).Decode(&v); err != nil {
		return v, fmt.Errorf("verify: its report: %w:\n%s", err, process.Indent(process.LastLines(out, 10)))
	}
	return v, nil
}
