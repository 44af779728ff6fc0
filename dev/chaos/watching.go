package chaos

import (
	"context"
	"errors"
	"time"
)

// alertmanagerAway has a vehicle drive too fast while nobody can be told.
func alertmanagerAway(ctx context.Context, t *trial) error {
	port := portOf(t.alertmanager.Address)
	err := t.inject("kills Alertmanager, and has a vehicle drive too fast", func() error {
		t.load.speeding.Store(true)
		return t.alertmanager.Kill(ctx)
	})
	if err == nil {
		err = sleepUntil(ctx, t.injected.Add(25*time.Second))
	}
	return errors.Join(err, t.heal("starts Alertmanager", func() error {
		if err := t.startAlertmanager(ctx, port); err != nil {
			return err
		}
		if err := t.hear(ctx, 0); err != nil {
			return err
		}
		t.note("people hear of the vehicle %.1f s after Alertmanager was started", time.Since(t.healed).Seconds())
		t.load.speeding.Store(false)
		return within(ctx, heardWithin, "people hear that it drives as it should", func() bool {
			status, _ := t.hooks.last(t.from, t.must[0])
			return status == "resolved"
		})
	}))
}

// prometheusAway kills a node while nobody looks.
func prometheusAway(ctx context.Context, t *trial) error {
	port := portOf(t.prometheus.Address)
	err := t.inject("kills Prometheus, and then a node", func() error {
		if err := t.prometheus.Kill(ctx); err != nil {
			return err
		}
		return t.Cluster.Kill(ctx, 4)
	})
	if err == nil {
		err = sleepUntil(ctx, t.injected.Add(15*time.Second))
	}
	started := time.Now()
	err = errors.Join(err, t.startPrometheus(ctx, port))
	if err == nil {
		err = t.hear(ctx, 0)
		t.note("people hear of the node %.1f s after Prometheus was started", time.Since(started).Seconds())
	}
	return errors.Join(err, t.heal("starts the node", func() error { return t.Cluster.Start(ctx, 4) }))
}
