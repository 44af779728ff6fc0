package kafka

import (
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// sayAgain is how often an outage is spoken of while it lasts.
const sayAgain = 30 * time.Second

// outages tells that something does not work: at once, and again every half minute for as long as it lasts.
type outages struct {
	logger logrus.FieldLogger
	now    func() time.Time

	mu sync.Mutex
	of map[string]*outage
}

type outage struct{ since, said time.Time }

func newOutages(logger logrus.FieldLogger, now func() time.Time) *outages {
	return &outages{logger: logger, now: now, of: map[string]*outage{}}
}

// note takes down how an attempt on a broker went.
func (o *outages) note(broker string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now, was := o.now(), o.of[broker]
	log := o.logger.WithField("broker", broker)
	switch {
	case err == nil && was == nil:
	case err == nil:
		delete(o.of, broker)
		log.WithField("after", now.Sub(was.since).Round(time.Second).String()).Info("kafka broker answers again")
	case was == nil:
		o.of[broker] = &outage{now, now}
		log.WithField("reason", err.Error()).Warn("kafka broker does not answer; trying again")
	case now.Sub(was.said) >= sayAgain:
		was.said = now
		log.WithFields(logrus.Fields{"reason": err.Error(), "for": now.Sub(was.since).Round(time.Second).String()}).
			Warn("kafka broker still does not answer; trying again")
	}
}

// due tells whether to speak of a trouble now, where the same one comes again and again.
func (o *outages) due(trouble string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	if was := o.of[trouble]; was != nil && now.Sub(was.said) < sayAgain {
		return false
	}
	o.of[trouble] = &outage{now, now}
	return true
}
