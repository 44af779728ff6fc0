package plugin

import (
	"io"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"
	"github.com/sirupsen/logrus"
)

// driverLogger writes the log of package cassandra to the log of Grafana.
func driverLogger(uid string) logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	logger.SetLevel(logrus.DebugLevel)
	logger.AddHook(&grafanaLog{backend.Logger.With("datasource", uid)})
	return logger
}

type grafanaLog struct{ logger log.Logger }

// Levels implements logrus.Hook.
func (g *grafanaLog) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (g *grafanaLog) Fire(e *logrus.Entry) error {
	args := make([]any, 0, 2*len(e.Data))
	for key, value := range e.Data {
		args = append(args, key, value)
	}
	switch e.Level {
	case logrus.TraceLevel, logrus.DebugLevel:
		g.logger.Debug(e.Message, args...)
	case logrus.InfoLevel:
		g.logger.Info(e.Message, args...)
	case logrus.WarnLevel:
		g.logger.Warn(e.Message, args...)
	default:
		g.logger.Error(e.Message, args...)
	}
	return nil
}
