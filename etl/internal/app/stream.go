package app

import (
	"context"
	"fmt"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/notifier"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
)

const (
	alertResend = time.Minute
	alertWait   = 10 * time.Second
)

// receivers makes the receivers of alerts.
func (p *program) receivers(x *parts) error {
	c := p.config
	if urls := alertmanagerURLs(c); len(urls) > 0 {
		manager, err := notifier.NewAlertmanager(notifier.Options{
			URLs: urls, GrafanaURL: c.GrafanaURL, RunbookURL: c.RunbookURL, Resend: alertResend, Timeout: alertWait,
		}, x.path.openAlerts, p.logger, p.reg, time.Now)
		if err != nil {
			return fmt.Errorf("ETL_ALERTMANAGER_URLS: %w", err)
		}
		x.alertmanager = manager
		x.path.receivers = append(x.path.receivers, manager)
	}
	if c.KafkaAlertTopic != "" {
		connection, err := kafkaConnection(c)
		if err != nil {
			return err
		}
		client, err := connection.Client()
		if err != nil {
			return fmt.Errorf("KAFKA_…: %w", err)
		}
		if x.alertTopic, err = notifier.NewKafka(client, c.KafkaAlertTopic, p.logger, p.reg, time.Now); err != nil {
			return fmt.Errorf("KAFKA_ALERT_TOPIC: %w", err)
		}
		x.path.receivers = append(x.path.receivers, x.alertTopic)
	}
	return nil
}

// countOpenAlerts reads the open alerts for their metric, as Alertmanager does where there is one.
func (p *program) countOpenAlerts(ctx context.Context, path *recordPath) {
	outage := ratelog.New(p.logger, time.Now, ratelog.Interval, ratelog.Messages{
		Down: "reading open alerts failed, their metric is out of date",
		Up:   "reading open alerts works again",
	})
	for ctx.Err() == nil {
		if _, err := path.openAlerts(ctx); ctx.Err() == nil {
			outage.Note(err)
		}
		_ = backoff.Sleep(ctx, alertResend)
	}
}

// toEnd runs one source to its end. It notifies no receiver: a streaming process does.
func (p *program) toEnd(ctx context.Context, x *parts, source pipeline.Source) error {
	if p.config.ProcessorEnabled {
		store, err := x.connector.Wait(ctx)
		if err != nil {
			return err
		}
		if err := x.publisher.publish(ctx, store); err != nil {
			return err
		}
	}
	return p.runPath(ctx, p.stop, x, true, source)
}

// runPath runs sources until they end or draining does, and then derives what is left.
func (p *program) runPath(ctx, draining context.Context, x *parts, wait bool, sources ...pipeline.Source) error {
	if err := x.pipeline.Run(ctx, draining, sources...); err != nil {
		return err
	}
	err := x.path.Finish(ctx, wait && draining.Err() == nil)
	if err != nil && ctx.Err() != nil {
		p.logger.WithError(err).Warn("all records are stored, but not all derived rows; the next process derives the rest")
		return nil
	}
	return err
}
