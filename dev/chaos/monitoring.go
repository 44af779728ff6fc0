package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// awaitCalm waits until no alert of an earlier fault fires. Alerts that fire for long may linger unless this fault expects them.
func (s *scenario) awaitCalm(ctx context.Context) error {
	began := time.Now()
	err := waitFor(ctx, calmWithin, "no alert of an earlier fault fires", func() bool {
		var err error
		if s.lingering, err = s.firing(ctx); err != nil {
			return false
		}
		return len(s.lingering) == 0 || time.Since(began) > lingersAfter && !slices.ContainsFunc(s.expected, func(a alert) bool { return slices.Contains(s.lingering, a.name()) })
	})
	if err != nil {
		return fmt.Errorf("%w; firing: %s", err, strings.Join(s.lingering, ", "))
	}
	return nil
}

// firing returns the names of the firing alerts in Prometheus, except for the always allowed ones.
func (p *platform) firing(ctx context.Context) (names []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var text bytes.Buffer
	if err := process.Fetch(ctx, "http://"+p.prometheus.Address+"/api/v1/alerts", &text); err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	err = json.Unmarshal(text.Bytes(), &answer)
	for _, a := range answer.Data.Alerts {
		if name := a.Labels["alertname"]; a.State == "firing" && !slices.Contains(alwaysAllowed, name) {
			names = append(names, name)
		}
	}
	return names, err
}

// killAlertmanager lets a vehicle speed while no notification can be sent.
func killAlertmanager(ctx context.Context, s *scenario) error {
	s.load.speeding.Store(true)
	return s.alertmanager.Kill(ctx)
}

func restartAlertmanager(ctx context.Context, s *scenario) error {
	if err := s.startAlertmanager(ctx); err != nil {
		return err
	}
	if err := s.awaitAlerts(ctx); err != nil {
		return err
	}
	s.note("the alert of the vehicle fired %.1f s after the start of Alertmanager", time.Since(s.healed).Seconds())
	s.load.speeding.Store(false)
	return s.awaitResolved(ctx, s.expected[0])
}

// restartPrometheus kills a node while no rule is evaluated.
func restartPrometheus(ctx context.Context, s *scenario) error {
	err := s.prometheus.Kill(ctx)
	if err == nil {
		err = s.Cluster.Kill(ctx, 4)
	}
	if err == nil {
		err = process.Sleep(ctx, 15*time.Second)
	}
	started := time.Now()
	if err = errors.Join(err, s.startPrometheus(ctx)); err != nil {
		return err
	}
	err = s.awaitAlerts(ctx)
	s.note("the alert of the node fired %.1f s after the start of Prometheus", time.Since(started).Seconds())
	return err
}
