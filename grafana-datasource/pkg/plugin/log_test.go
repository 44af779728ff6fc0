package plugin

import (
	"errors"
	"fmt"
	"testing"

	"github.com/grafana/grafana-plugin-sdk-go/backend/log"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
)

// recorder records log lines.
type recorder struct {
	log.Logger
	lines []string
}

func (r *recorder) line(level, message string, args []any) {
	r.lines = append(r.lines, fmt.Sprintln(level, message, args))
}

func (r *recorder) Debug(m string, args ...any) { r.line("debug", m, args) }
func (r *recorder) Info(m string, args ...any)  { r.line("info", m, args) }
func (r *recorder) Warn(m string, args ...any)  { r.line("warn", m, args) }
func (r *recorder) Error(m string, args ...any) { r.line("error", m, args) }

func TestDriverLogKeepsLevelsAndFields(t *testing.T) {
	r := &recorder{}
	hook := &grafanaLog{r}
	for _, level := range logrus.AllLevels[1:] {
		entry := &logrus.Entry{Level: level, Message: "node down", Data: logrus.Fields{"error": errors.New("refused")}}
		assert.NoError(t, hook.Fire(entry))
	}
	assert.Equal(t, []string{
		"error node down [error refused]\n", "error node down [error refused]\n", "warn node down [error refused]\n",
		"info node down [error refused]\n", "debug node down [error refused]\n", "debug node down [error refused]\n",
	}, r.lines)
}
