package chaos

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTimesCountFromWhenRecordsAreDue(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	p := &phase{from: at(0), to: at(10_000)}
	tenant := &tenant{phases: []*phase{p}}
	tenant.countRecords([]sighting{{at(300), 100}, {at(4000), 300}}, []record{
		{ms: 100, due: at(0)},
		{ms: 200, due: at(500)},  // never the latest position that a read returned
		{ms: 300, due: at(2000)}, // the sender waited: nothing was sent for 1000 and 1500
		{ms: 400, due: at(2500)}, // after the last read
	})
	assert.ElementsMatch(t, []time.Duration{300e6, 3500e6, 2000e6, 2500e6, 3000e6}, p.fresh)
	assert.Equal(t, 3500*time.Millisecond, percentile(p.fresh, 99))
	assert.Equal(t, 2500*time.Millisecond, percentile(p.fresh, 50))
	assert.Zero(t, percentile(nil, 99))
}

func TestTextIsFoundAcrossWrites(t *testing.T) {
	for text, want := range map[string]bool{"a fleet-a b": true, "fleet-": false, "fleet-b fleet-": false} {
		for size := 1; size <= len(text); size++ {
			f := &finder{text: []byte("fleet-a")}
			for from := 0; from < len(text); from += size {
				_, _ = f.Write([]byte(text[from:min(from+size, len(text))]))
			}
			assert.Equal(t, want, f.yes, "%q in pieces of %d", text, size)
		}
	}
}

func TestAlertsAreComparedWithNotifications(t *testing.T) {
	due := time.Now().Truncate(time.Millisecond)
	opened := due.Add(-behind).UTC()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "Bearer "+tokenOf(honestFleet), r.Header.Get("Authorization"))
		at := opened.Format("2006-01-02T15:04:05.000Z")
		fmt.Fprintf(w, `{"items":[{"device_id":"a","timestamp":%q},{"device_id":"b","timestamp":%q},{"device_id":"c","timestamp":"2000-01-01T00:00:00.000Z"}]}`, at, at)
	}))
	defer api.Close()
	s := &scenario{platform: &platform{inbox: &inbox{}}, load: newLoad(honestFleet, strings.TrimPrefix(api.URL, "http://"))}
	s.inbox.list = []notification{
		{at: due.Add(time.Second), StartsAt: opened.Add(-time.Minute), Labels: map[string]string{"device": "a"}}, // an earlier alert
		{at: due.Add(3 * time.Second), StartsAt: opened, Labels: map[string]string{"device": "a"}},
		{at: due.Add(9 * time.Second), StartsAt: opened, Labels: map[string]string{"device": "a"}},
	}
	p := &phase{from: due.Add(-time.Second), to: due.Add(time.Second)}
	tenant := &tenant{s: s, phases: []*phase{{}, p}}
	require.NoError(t, tenant.countAlerts(t.Context()))
	assert.Equal(t, []time.Duration{3 * time.Second}, p.alerts)
	assert.Equal(t, 1, p.missed)
	assert.Contains(t, tenant.table(), "| alert due to notified, P50 / P95 / P99 | 0.00 / 0.00 / 0.00 s | 3.00 / 3.00 / 3.00 s |\n")
	assert.Contains(t, tenant.table(), "| alerts that were not notified | 0 of 0 | 1 of 2 |\n")
}

func TestIntruderNoticesWhatItLearns(t *testing.T) {
	var answer atomic.Pointer[string]
	var reads atomic.Int32
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			fmt.Fprint(w, `{"accepted":3}`)
		case strings.HasSuffix(r.URL.Path, "/analytics"):
			fmt.Fprintf(w, `{"items":[{"total_distance_km":%s}]}`, *answer.Load())
		case r.URL.Path == "/v1/fleets":
			reads.Add(1)
			fmt.Fprint(w, `{"items":[{"fleet_id":"`+hostileFleet+`"}]}`)
		default:
			http.Error(w, honestFleet, http.StatusForbidden)
		}
	}))
	defer api.Close()
	attack := func(distance string) error {
		answer.Store(&distance)
		i := newIntruder(strings.TrimPrefix(api.URL, "http://"))
		stop := i.attack(t.Context())
		require.Eventually(t, func() bool { return i.accepted.Load() > 0 && reads.Load() > 0 }, 10*time.Second, 10*time.Millisecond)
		stop()
		assert.Contains(t, i.String(), "× 200")
		i.leaked = "" // analytics of the honest fleet are answered here
		return i.learned(t.Context())
	}
	require.NoError(t, attack("0"))
	require.ErrorContains(t, attack("0.5"), "drove 0.5 km")

	i := newIntruder(strings.TrimPrefix(api.URL, "http://"))
	i.read(t.Context(), 10)
	require.Equal(t, "/v1/fleets/"+honestFleet+"/analytics", i.leaked)
	zero := "0"
	answer.Store(&zero)
	require.ErrorContains(t, i.learned(t.Context()), "read data of the honest one")
}
