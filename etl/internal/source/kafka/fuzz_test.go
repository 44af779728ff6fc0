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

// FuzzRead holds that nothing of a message is lost: it is skipped when it holds nothing, or each of its records comes out
// once, in order, good or refused with a reason, under the message's offset.
func FuzzRead(f *testing.F) {
	const good = `{"device_id":"v1","fleet_id":"wuxi","timestamp":1795000000000,"lat":31.5,"lon":120.25}`
	for _, value := range []string{good, good + "\n" + good + "\r\n\n{\"device_id\":\"v2\"\n", "{\n\"device_id\": \"v1\",\n\"lat\": 1\n}", " \n", "", "\xff\n\x00", "[" + good + "]", `"device_id":"v1"`} {
		f.Add([]byte(value), int64(7))
	}
	f.Fuzz(func(t *testing.T, value []byte, offset int64) {
		var b pipeline.Batch
		skipped := read(&b, &kgo.Record{Value: value, Offset: offset})
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
		var items, refused []string
		for _, item := range b.Items {
			items = append(items, item.Raw)
			require.Equal(t, offset, item.Position)
			again, rejection := telemetry.ParseJSON([]byte(item.Raw), "")
			require.Nil(t, rejection)
			require.Equal(t, again, item.Record)
		}
		for _, r := range b.Rejected {
			refused = append(refused, r.Raw)
			require.Equal(t, offset, r.Position)
			require.Contains(t, telemetry.Reasons, r.Reason)
			require.NotEmpty(t, r.Remedy)
		}
		for _, text := range want { // each list is in order, so this takes both apart again
			switch {
			case len(items) > 0 && items[0] == text:
				items = items[1:]
			case len(refused) > 0 && refused[0] == text:
				refused = refused[1:]
			default:
				t.Fatalf("%q is lost", text)
			}
		}
		require.Empty(t, slices.Concat(items, refused))
		if key := keyOf(value); key != nil {
			require.True(t, telemetry.ValidName(string(key)))
		}
	})
}
