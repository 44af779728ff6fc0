package kafka

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// FuzzParse checks that no record of a value is lost: an empty value is skipped, and each record of any other comes out
// once, in order, valid or rejected with a reason, with the value's offset.
func FuzzParse(f *testing.F) {
	const valid = `{"device_id":"v1","fleet_id":"wuxi","timestamp":1795000000000,"lat":31.5,"lon":120.25}`
	for _, value := range []string{valid, valid + "\n" + valid + "\r\n\n{\"device_id\":\"v2\"\n", "{\n\"device_id\": \"v1\",\n\"lat\": 1\n}", " \n", "", "\xff\n\x00", "[" + valid + "]", `"device_id":"v1"`} {
		f.Add([]byte(value), int64(7))
	}
	f.Fuzz(func(t *testing.T, value []byte, offset int64) {
		var b pipeline.Batch
		skipped := parse(&b, &kgo.Record{Value: value, Offset: offset})
		var want []string
		if text := strings.TrimSpace(string(value)); json.Valid([]byte(text)) || !strings.Contains(text, "\n") && text != "" {
			want = []string{string(value)}
		} else {
			for _, line := range strings.Split(text, "\n") {
				if line = strings.TrimSpace(line); line != "" {
					want = append(want, line)
				}
			}
		}
		require.Equal(t, len(want) == 0, skipped != "")
		var items, rejected []string
		for _, item := range b.Items {
			items = append(items, item.Raw)
			require.Equal(t, offset, item.Position)
			again, rejection := telemetry.ParseJSON([]byte(item.Raw), "")
			require.Nil(t, rejection)
			require.Equal(t, again, item.Record)
		}
		for _, r := range b.Rejected {
			rejected = append(rejected, r.Raw)
			require.Equal(t, offset, r.Position)
			require.Contains(t, telemetry.Reasons, r.Reason)
			require.NotEmpty(t, r.Remedy)
		}
		for _, text := range want { // each list is in order, so this merges them
			switch {
			case len(items) > 0 && items[0] == text:
				items = items[1:]
			case len(rejected) > 0 && rejected[0] == text:
				rejected = rejected[1:]
			default:
				t.Fatalf("%q is lost", text)
			}
		}
		require.Empty(t, slices.Concat(items, rejected))
		if key := keyOf(value); key != nil {
			require.True(t, telemetry.ValidName(string(key)))
		}
	})
}
