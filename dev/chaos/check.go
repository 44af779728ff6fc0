package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// checkStored compares the stored records, read at level ALL, with the acknowledged ones.
func (s *scenario) checkStored(ctx context.Context) error {
	err := waitFor(ctx, s.timeout(drainedWithin), "the spool is empty", func() bool { return s.etl.metric("fleet_etl_spool_entries") == 0 })
	if err != nil {
		return err
	}
	store, err := cassandra.Open(ctx, s.store, quiet(), nil)
	if err != nil {
		return err
	}
	defer store.Close()

	acknowledged, rejected := byDevice(s.load.accepted), byDevice(s.load.rejected)
	var example string
	for device, records := range acknowledged {
		s.acknowledged += len(records)
		rows, err := s.history(ctx, store, device)
		if err != nil {
			return err
		}
		s.stored += len(rows)
		for _, row := range rows {
			ms := row.Ts.UnixMilli()
			sent, known := records[ms]
			_, reprocessed := rejected[device][ms]
			delete(records, ms)
			switch {
			case !known && reprocessed:
				delete(rejected[device], ms)
				s.acknowledged++
			case !known:
				s.unknown++
				example = fmt.Sprintf("%s of %s was never sent", device, row.Ts)
			case !sent.is(row):
				s.differing++
				example = fmt.Sprintf("%+v was sent, %+v is stored", sent, row)
			}
		}
		for ms, r := range records {
			if ms >= s.keptFromMs {
				s.missing++
				example = fmt.Sprintf("%+v is missing", r)
			}
		}
	}
	for device, left := range rejected {
		for ms := range left {
			s.missing++
			example = fmt.Sprintf("%s of %d was rejected, and never reprocessed", device, ms)
		}
	}
	s.resent = s.load.resent
	if s.acknowledged == 0 {
		return errors.New("nothing was acknowledged")
	}
	if s.missing+s.differing+s.unknown > 0 {
		return fmt.Errorf("of %d acknowledged records %d are missing and %d differ, and %d were never sent: %s", s.acknowledged, s.missing, s.differing, s.unknown, example)
	}
	return nil
}

func byDevice(records []record) map[string]map[int64]record {
	devices := map[string]map[int64]record{}
	for _, r := range records {
		if devices[r.device] == nil {
			devices[r.device] = map[int64]record{}
		}
		devices[r.device][r.ms] = r
	}
	return devices
}

// history returns the stored records of a device at level ALL. It retries, because nodes may just have started.
func (s *scenario) history(ctx context.Context, store *cassandra.Store, device string) (rows []cassandra.Telemetry, err error) {
	var failed error
	err = waitFor(ctx, 15*time.Second, "the history of "+device+" is read at level ALL", func() bool {
		rows, failed = store.History(ctx, cassandra.HistoryQuery{DeviceID: device, From: time.Now().Add(-48 * time.Hour), To: time.Now().Add(time.Hour)})
		return failed == nil
	})
	return rows, errors.Join(err, failed)
}

func (r record) is(row cassandra.Telemetry) bool {
	return row.Lat == r.lat && row.Lon == r.lon && row.SpeedKmh != nil && *row.SpeedKmh == r.speed &&
		row.BatteryPct != nil && int(*row.BatteryPct) == r.battery && row.TempC != nil && *row.TempC == r.temp
}

// verification is the report of fleet-etl verify.
type verification struct {
	Records, Alerts, Hours int
	NotVerified            struct{ Sending, Pending, Hours int }
	Differences            []json.RawMessage
}

// left returns how much was not verified.
func (v verification) left() int {
	return v.NotVerified.Sending + v.NotVerified.Pending + v.NotVerified.Hours
}

// checkDerived waits until verify has verified everything and finds no difference, and checks that it read every stored record.
func (s *scenario) checkDerived(ctx context.Context, stopped time.Time) error {
	if s.repair {
		v, err := s.verify(ctx, s.load.fleet)
		if err != nil {
			return err
		}
		s.note("verify finds %d differences, and recomputes", len(v.Differences))
		if _, err := s.verify(ctx, s.load.fleet, "--fix"); err != nil {
			return err
		}
	}
	v, err := s.verifyUntilEqual(ctx, s.load.fleet)
	if err != nil {
		return err
	}
	s.verified, s.differences = v.Records, len(v.Differences)
	s.note("verify finished %.1f s after the last record", time.Since(stopped).Seconds())
	switch {
	case len(v.Differences) > 0:
		return fmt.Errorf("verify finds %d differences %s after the last record, such as %s", len(v.Differences), time.Since(stopped).Round(time.Second), v.Differences[0])
	case v.Records != s.stored:
		return fmt.Errorf("verify read %d records, and %d are stored", v.Records, s.stored)
	case v.left() > 0:
		return fmt.Errorf("verify left out a part: %+v", v.NotVerified)
	case v.Alerts == 0 || v.Hours == 0: // a trip may still be open
		return fmt.Errorf("derived rows are missing: %d alerts, %d hours", v.Alerts, v.Hours)
	}
	return nil
}

// verifyUntilEqual repeats verify until it has verified everything and finds no difference, or until the time is up. What an instance
// leaves at a kill is verified after another one has taken it over.
func (p *platform) verifyUntilEqual(ctx context.Context, fleet string) (v verification, err error) {
	for end := time.Now().Add(p.timeout(derivedWithin)); ; {
		if v, err = p.verify(ctx, fleet); err != nil || len(v.Differences)+v.left() == 0 || time.Now().After(end) {
			return v, err
		}
		if err := process.Sleep(ctx, 2*time.Second); err != nil {
			return v, err
		}
	}
}

func (p *platform) verify(ctx context.Context, fleet string, flags ...string) (v verification, err error) {
	from := time.Now().UTC().Add(-24 * time.Hour).Format(time.DateOnly)
	out, err := p.command(ctx, append([]string{"verify", "--fleet", fleet, "--from", from, "--report", "json"}, flags...)...)
	if err != nil && exitStatus(err) != 2 { // 2: there are differences
		return v, err
	}
	if err := json.NewDecoder(bytes.NewReader(out)).Decode(&v); err != nil {
		return v, fmt.Errorf("the report of verify: %w:\n%s", err, process.Indent(process.LastLines(out, 10)))
	}
	return v, nil
}
