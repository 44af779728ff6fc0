// Package ratelog keeps a fault that repeats from filling the log. An Outage logs the first failure, a reminder at each
// interval while it lasts, and the recovery with its duration.
package ratelog

import (
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// Interval is the usual time between two log lines about the same fault.
const Interval = 30 * time.Second

// Messages are the log messages of an outage, constant and lower case.
type Messages struct {
	Down  string // first failure, a warning with the field error
	Still string // reminder, a warning with the fields error and duration; empty is Down
	Up    string // recovery, an information with the field duration; empty logs none
}

// Outage logs the failures of one target. It is safe for concurrent use.
type Outage struct {
	logger   logrus.FieldLogger
	now      func() time.Time
	interval time.Duration
	messages Messages

	mu    sync.Mutex
	since time.Time // first failure; zero while the target works
	last  time.Time // last log line
}

// New makes an outage that reminds at each interval. The logger carries the fields that name the target.
func New(logger logrus.FieldLogger, now func() time.Time, interval time.Duration, m Messages) *Outage {
	if m.Still == "" {
		m.Still = m.Down
	}
	return &Outage{logger: logger, now: now, interval: interval, messages: m}
}

// Note records how an attempt went: nil is a success.
func (o *Outage) Note(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	lasted := func() string { return now.Sub(o.since).Round(time.Millisecond).String() }
	switch {
	case err == nil && o.since.IsZero():
	case err == nil:
		if o.messages.Up != "" {
			o.logger.WithField("duration", lasted()).Info(o.messages.Up)
		}
		o.since = time.Time{}
	case o.since.IsZero():
		o.since, o.last = now, now
		o.logger.WithError(err).Warn(o.messages.Down)
	case now.Sub(o.last) >= o.interval:
		o.last = now
		o.logger.WithError(err).WithField("duration", lasted()).Warn(o.messages.Still)
	}
}

// Active reports whether the last attempt failed.
func (o *Outage) Active() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.since.IsZero()
}

// Outages are the outages of several targets of one kind, such as brokers. They are safe for concurrent use. They keep
// a little memory for each target that fails at the moment.
type Outages struct {
	outageOf func(target string) *Outage

	mu     sync.Mutex
	failed map[string]*Outage
}

// NewOutages makes outages whose log lines carry the target in the given field.
func NewOutages(logger logrus.FieldLogger, now func() time.Time, interval time.Duration, field string, m Messages) *Outages {
	return &Outages{
		outageOf: func(target string) *Outage { return New(logger.WithField(field, target), now, interval, m) },
		failed:   map[string]*Outage{},
	}
}

// Note records how an attempt on a target went: nil is a success.
func (o *Outages) Note(target string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	outage := o.failed[target]
	if outage == nil {
		if err == nil {
			return
		}
		outage = o.outageOf(target)
		o.failed[target] = outage
	}
	outage.Note(err)
	if err == nil {
		delete(o.failed, target)
	}
}
