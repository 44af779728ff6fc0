package ratelog

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
)

var messages = Messages{Down: "server unavailable", Still: "server still unavailable", Up: "server available again"}

// lines returns and forgets what was logged, each line with its error and duration.
func lines(hook *test.Hook) (all []string) {
	for _, e := range hook.AllEntries() {
		all = append(all, fmt.Sprint(e.Message, " ", e.Data[logrus.ErrorKey], " ", e.Data["duration"]))
	}
	hook.Reset()
	return all
}

func TestOutageLogsFailureReminderAndRecovery(t *testing.T) {
	logger, hook := test.NewNullLogger()
	now := time.Unix(1_700_000_000, 0)
	outage := New(logger, func() time.Time { return now }, 30*time.Second, messages)
	outage.Note(nil)
	if got := lines(hook); got != nil || outage.Active() {
		t.Fatalf("a success before any failure logged %q", got)
	}
	for range 80 { // one failure per second
		outage.Note(errors.New("refused"))
		now = now.Add(time.Second)
	}
	if !outage.Active() {
		t.Error("not active after a failure")
	}
	outage.Note(nil)
	outage.Note(nil)
	want := []string{
		"server unavailable refused <nil>", "server still unavailable refused 30s", "server still unavailable refused 1m0s",
		"server available again <nil> 1m20s",
	}
	if got := lines(hook); !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
	if outage.Active() {
		t.Error("active after a success")
	}
	outage.Note(errors.New("refused"))
	if got := lines(hook); !slices.Equal(got, want[:1]) {
		t.Errorf("a new outage logged %q, want %q", got, want[:1])
	}
}

func TestOutageWithoutOwnReminderAndRecovery(t *testing.T) {
	logger, hook := test.NewNullLogger()
	now := time.Unix(1_700_000_000, 0)
	outage := New(logger, func() time.Time { return now }, time.Second, Messages{Down: "failed"})
	outage.Note(errors.New("refused"))
	now = now.Add(time.Second)
	outage.Note(errors.New("refused"))
	outage.Note(nil)
	if got, want := lines(hook), []string{"failed refused <nil>", "failed refused 1s"}; !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
}

func TestOutagesKeepTargetsApart(t *testing.T) {
	logger, hook := test.NewNullLogger()
	now := time.Unix(1_700_000_000, 0)
	outages := NewOutages(logger, func() time.Time { return now }, 30*time.Second, "broker", messages)
	outages.Note("a", nil)
	outages.Note("a", errors.New("refused"))
	outages.Note("b", errors.New("timeout"))
	outages.Note("a", errors.New("refused"))
	outages.Note("a", nil)
	outages.Note("a", nil)
	var got []string
	for _, e := range hook.AllEntries() {
		got = append(got, fmt.Sprint(e.Data["broker"], ": ", e.Message))
	}
	want := []string{"a: server unavailable", "b: server unavailable", "a: server available again"}
	if !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
	if len(outages.failed) != 1 {
		t.Errorf("%d targets in memory, want the one that fails", len(outages.failed))
	}
}
