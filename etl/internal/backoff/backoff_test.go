package backoff

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestSleepLastsItsDuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		if err := Sleep(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(started); took != time.Minute {
			t.Errorf("slept %s, want 1m", took)
		}
	})
}

func TestSleepEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		started := time.Now()
		if err := Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
		if took := time.Since(started); took != time.Second {
			t.Errorf("slept %s, want 1s", took)
		}
	})
}

func TestJitterStaysBetweenHalfAndWhole(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 2, time.Millisecond, time.Hour} {
		for range 1000 {
			if got := Jitter(d); got < d/2 || got > d {
				t.Fatalf("Jitter(%s) = %s", d, got)
			}
		}
	}
}
