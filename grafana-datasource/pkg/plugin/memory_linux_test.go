//go:build !race

package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// processMemory is the memory that no viewer may make the plugin exceed.
const processMemory = 512 << 20

// hugeStore has more rows than fit into the memory of the process. Like the store, it asks for the memory of each row.
type hugeStore struct {
	fakeStore
	vehicles int // of each fleet
}

// rows makes up to limit rows of bytes each.
func rows[T any](ctx context.Context, limit, bytes int, row func(i int) T) ([]T, error) {
	take := cassandra.MemoryOf(ctx)
	var list []T
	for i := range limit {
		if err := take(bytes); err != nil {
			return list, fmt.Errorf("read: %w", err)
		}
		list = append(list, row(i))
	}
	return list, nil
}

func (s *hugeStore) Fleets(context.Context) ([]string, error) {
	var fleets []string
	for i := range 40 {
		fleets = append(fleets, fmt.Sprintf("fleet-%03d", i))
	}
	return fleets, nil
}

func (s *hugeStore) LatestOfFleet(ctx context.Context, fleet string) ([]cassandra.Telemetry, error) {
	return rows(ctx, s.vehicles, 370, func(i int) cassandra.Telemetry {
		speed := float64(i)
		return cassandra.Telemetry{DeviceID: fmt.Sprintf("%s-truck-%06d", fleet, i), FleetID: fleet, Ts: now, Lat: 52, Lon: 9, SpeedKmh: &speed}
	})
}

func (s *hugeStore) Devices(ctx context.Context, fleet string, limit int, page string) (cassandra.Page[cassandra.Device], error) {
	list, err := rows(ctx, limit, 310, func(i int) cassandra.Device {
		return cassandra.Device{FleetID: fleet, DeviceID: fmt.Sprintf("%s-%s-%d", fleet, page, i), ActivatedAt: now}
	})
	return cassandra.Page[cassandra.Device]{Rows: list, Next: page + "p"}, err
}

func (s *hugeStore) Alerts(ctx context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error) {
	if q.FleetID == "quiet" {
		return nil, nil
	}
	return rows(ctx, min(q.Limit, 1_000_000), 480, func(i int) cassandra.Alert {
		return cassandra.Alert{FleetID: q.FleetID, Severity: "HIGH", DeviceID: fmt.Sprint(i), Type: "speed_limit", OpenedMs: now.UnixMilli() - int64(i)}
	})
}

func (s *hugeStore) TrackOfDay(ctx context.Context, _, _ string, day cassandra.Day, fromMs, toMs int64, limit int) (*cassandra.Track, error) {
	start := max(day.Time().UnixMilli(), fromMs)
	list, err := rows(ctx, min(int(toMs-start)/1000, limit), 132, func(i int) cassandra.Position {
		return cassandra.Position{TsMs: start + 1000*int64(i), Lat: 52, Lon: 9, SpeedKmh: float64(i % 100), Fleet: "north"}
	})
	return &cassandra.Track{Positions: list}, err
}

func (s *hugeStore) Schema(context.Context) ([]cassandra.Table, error) {
	return []cassandra.Table{{Name: "t", PartitionKey: []string{"k"}}}, nil
}

// Select has no rows for negative keys, and a row a second for others.
func (s *hugeStore) Select(ctx context.Context, statement string, limit int) (cassandra.Result, error) {
	result := cassandra.Result{Columns: []cassandra.ResultColumn{{Name: "ts", Type: "timestamp"}, {Name: "lat", Type: "double"}, {Name: "l", Type: "text"}}}
	if strings.Contains(statement, "day") {
		result.Columns[0].Type = "date"
	}
	if strings.Contains(statement, "*") {
		for i := range 9 {
			result.Columns = append(result.Columns, cassandra.ResultColumn{Name: fmt.Sprint("c", i), Type: "double"})
		}
	}
	available := 86_400
	if strings.Contains(statement, "k = -") {
		available = 0
	}
	bytes := 24 + 64*len(result.Columns) + 40
	list, err := rows(ctx, min(limit, available), bytes, func(i int) []any {
		ts := now.Add(time.Duration(i) * time.Second)
		row := []any{ts, float64(i), ts.Format(time.RFC3339)}
		if result.Columns[0].Type == "date" {
			row[0] = now.Truncate(24 * time.Hour)
		}
		for j := len(row); j < len(result.Columns); j++ {
			row = append(row, float64(i+j))
		}
		return row
	})
	result.Rows, result.Bytes = list, bytes*len(list)
	return result, err
}

// ask runs a request like Grafana does, encodes the response, and then ends the context. It returns the responses without
// their frames.
func ask(t *testing.T, d *Datasource, from time.Time, queries ...string) backend.Responses {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req := &backend.QueryDataRequest{}
	for i, text := range queries {
		q := backend.DataQuery{RefID: fmt.Sprint(i), JSON: json.RawMessage(text), TimeRange: backend.TimeRange{From: from, To: now}, Interval: time.Second}
		q.MaxDataPoints = 2_000_000_000
		req.Queries = append(req.Queries, q)
	}
	response, err := d.QueryData(ctx, req)
	require.NoError(t, err)
	encoded, err := backend.ToProto().QueryDataResponse(backend.DataFrameFormat_ARROW, response)
	require.NoError(t, err)
	_, err = proto.Marshal(encoded)
	require.NoError(t, err)
	for id, r := range response.Responses {
		for _, frame := range r.Frames {
			frame.Fields = nil
		}
		response.Responses[id] = r
	}
	return response.Responses
}

// together runs n requests at once, and returns how many of them succeed. The others must name the memory.
func together(t *testing.T, d *Datasource, n int, from time.Time, text func(i int) string) int {
	var succeeded atomic.Int32
	var requests sync.WaitGroup
	for i := range n {
		requests.Go(func() {
			for _, r := range ask(t, d, from, text(i)) {
				if r.Error == nil {
					succeeded.Add(1)
				} else {
					assert.ErrorContains(t, r.Error, "query memory: ")
				}
			}
		})
	}
	requests.Wait()
	return int(succeeded.Load())
}

func many(n int, text string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = text
	}
	return list
}

var hour, week, years = now.Add(-time.Hour), now.AddDate(0, 0, -7), time.Unix(0, 0)

// attacks are requests of one viewer that need more memory than the process has.
var attacks = map[string]func(t *testing.T, d *Datasource){
	"two billion points of an alert series": func(t *testing.T, d *Datasource) {
		assert.NoError(t, ask(t, d, years, `{"queryType":"alerts","format":"time_series","fleets":["quiet"]}`)["0"].Error)
	},
	"alerts of years in every format": func(t *testing.T, d *Datasource) {
		for _, format := range []string{"table", "logs", "annotations", "time_series", "numeric"} {
			together(t, d, 3, years, func(int) string { return `{"queryType":"alerts","resolved":"open","format":"` + format + `"}` })
		}
	},
	"a series for each row": func(t *testing.T, d *Datasource) {
		for _, limit := range []int{900, 3000, 50_000} {
			for _, columns := range []string{"ts, lat, l", "day, lat, l"} {
				text := fmt.Sprintf(`{"queryType":"raw","format":"time_series","limit":%d,"cql":"SELECT %s FROM t WHERE k = 1"}`, limit, columns)
				r := ask(t, d, hour, text)["0"]
				switch {
				case limit == 900:
					assert.NoError(t, r.Error)
				case columns == "ts, lat, l":
					assert.ErrorContains(t, r.Error, "more than 1000000 cells")
				}
			}
		}
	},
	"eight statements of 100,000 rows at once": func(t *testing.T, d *Datasource) {
		n := together(t, d, 8, hour, func(i int) string {
			return fmt.Sprintf(`{"queryType":"raw","limit":%d,"cql":"SELECT * FROM t WHERE k IN (1, 2)"}`, 100_000-i)
		})
		assert.GreaterOrEqual(t, n, 2, "the memory suffices for two")
	},
	"absent keys before long partitions": func(t *testing.T, d *Datasource) {
		keys := "-1, -2, -3, -4, -5, -6, -7, -8"
		for i := range 50 {
			keys += fmt.Sprintf(", %d", i)
		}
		r := ask(t, d, hour, `{"queryType":"raw","cql":"SELECT * FROM t WHERE k IN (`+keys+`)"}`)["0"]
		require.NoError(t, r.Error)
		require.Len(t, r.Frames[0].Meta.Notices, 1)
		assert.Contains(t, r.Frames[0].Meta.Notices[0].Text, "Only the first ")
	},
	"log lines": func(t *testing.T, d *Datasource) {
		together(t, d, 4, hour, func(i int) string {
			return fmt.Sprintf(`{"queryType":"raw","format":"logs","limit":%d,"cql":"SELECT * FROM t WHERE k = 1"}`, 80_000-i)
		})
	},
	"tracks with a position a second": func(t *testing.T, d *Datasource) {
		n := together(t, d, 3, week, func(i int) string {
			return fmt.Sprintf(`{"queryType":"track","format":"table","devices":["a-%d","b","c","d"]}`, i)
		})
		assert.Equal(t, 3, n, "tracks wait for each other")
	},
	"maps of large fleets": func(t *testing.T, d *Datasource) {
		together(t, d, 5, hour, func(i int) string { return fmt.Sprintf(`{"fleets":["north","fleet-%03d"]}`, i) })
	},
	"lists of all fleets": func(t *testing.T, d *Datasource) {
		for _, text := range []string{`{}`, `{"queryType":"devices"}`, `{"queryType":"variable","variable":"devices"}`} {
			together(t, d, 1, hour, func(int) string { return text })
		}
	},
	"many queries in a request": func(t *testing.T, d *Datasource) {
		failed := 0
		for _, r := range ask(t, d, hour, many(maxQueries, `{"queryType":"raw","limit":5000,"cql":"SELECT * FROM t WHERE k = 1"}`)...) {
			if r.Error != nil {
				failed++
				assert.ErrorContains(t, r.Error, "query memory: ")
			}
		}
		assert.Positive(t, failed)
	},
	"long queries": func(t *testing.T, d *Datasource) {
		texts := []string{`{"filters":[` + strings.Repeat("{},", 340_000) + `{}]}`}
		pattern := strings.Repeat(".{1000}", 140)
		texts = append(texts, `{"filters":[`+strings.TrimSuffix(strings.Repeat(`{"key":"zone","operator":"=~","value":"`+pattern+`"},`, 900), ",")+`]}`)
		var keys strings.Builder
		for i := range 2000 {
			fmt.Fprintf(&keys, ",%d", i)
		}
		texts = append(texts, `{"queryType":"raw","cql":"SELECT lat, '`+strings.Repeat("x", 110_000)+`' FROM t WHERE k IN (`+keys.String()[1:]+`)"}`)
		for _, text := range texts {
			for _, r := range ask(t, d, hour, many(20, text)...) {
				assert.Error(t, r.Error)
			}
		}
	},
	"live maps": func(t *testing.T, d *Datasource) {
		var streams sync.WaitGroup
		for range 20 {
			streams.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_, err := d.SubscribeStream(ctx, &backend.SubscribeStreamRequest{Path: northPath})
				assert.NoError(t, err)
			})
		}
		streams.Wait()
	},
}

// Each attack runs in a process that has no more memory: it ends if it needs more.
func TestNoViewerExhaustsTheMemory(t *testing.T) {
	const variable = "FLEET_TEST_ATTACK"
	if attack, ok := attacks[os.Getenv(variable)]; ok {
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_DATA, &syscall.Rlimit{Cur: processMemory, Max: processMemory}))
		debug.SetGCPercent(GarbagePercent)
		attack(t, newTestDatasource(t, &hugeStore{vehicles: 80_000}, map[string]any{"queryTimeout": "1m"}))
		return
	}
	for name := range attacks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()[:strings.Index(t.Name(), "/")]+"$")
			child.Env = append(os.Environ(), variable+"="+name)
			output, err := child.CombinedOutput()
			usage := child.ProcessState.SysUsage().(*syscall.Rusage)
			t.Logf("most memory: %d MB", usage.Maxrss>>10)
			if text := string(output); err != nil {
				t.Errorf("%v\n%s", err, text[:min(len(text), 3000)])
			}
		})
	}
}
