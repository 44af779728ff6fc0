package writer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestDevicesStayInMemoryUntilTheirWritesAreDurable(t *testing.T) {
	durable := uint64(0)
	s := newDevices(10, func() uint64 { return durable })
	for i := range 100 {
		s.put(fmt.Sprint("d", i), 1)
	}
	for i := range 100 {
		require.NotNil(t, s.get(fmt.Sprint("d", i), 1), "batch 1 is in flight")
	}
	durable = 1
	for i := range 50 {
		s.put(fmt.Sprint("e", i), 2)
	}
	require.Nil(t, s.get("d99", 3), "durable, and the memory is small")
	require.NotNil(t, s.get("e49", 3))
	durable = 3
	for i := range 1000 {
		s.put(fmt.Sprint("f", i), 3)
	}
	require.LessOrEqual(t, len(s.young)+len(s.old), 10)
}

func TestMutationHasOnePartitionAndIsBounded(t *testing.T) {
	w := &Writer{options: Options{BatchRows: 100}}
	items := make([]*pipeline.Item, 250)
	for i := range items {
		items[i] = &pipeline.Item{Record: telemetry.Record{DeviceID: "vehicle-0001", FleetID: "fleet-001", Zone: "unknown"}}
	}
	require.Equal(t, 91, w.fitting(items), "16 KiB")
	for _, item := range items {
		item.DeviceID, item.FleetID, item.Zone = strings.Repeat("d", 128), strings.Repeat("f", 128), strings.Repeat("z", 128)
	}
	require.Equal(t, mutationBytes/(rowBytes+3*128), w.fitting(items), "long names make smaller mutations")
	w.options.BatchRows = 10
	require.Equal(t, 10, w.fitting(items))
	require.Equal(t, 3, w.fitting(items[:3]))
	w.options.BatchRows = 1
	require.Equal(t, 1, w.fitting(items))

	p := newPlan(4)
	d := &device{id: "d"}
	midnight := int64(1_790_000_000_000 / 86_400_000 * 86_400_000)
	for _, ms := range []int64{midnight - 1, midnight, midnight + 1, midnight - 2} {
		p.add(d, &pipeline.Item{Record: telemetry.Record{DeviceID: "d", FleetID: "f", TimeMs: ms}})
	}
	require.Len(t, p.history, 2, "a day is a partition")
	for _, items := range p.history {
		require.Len(t, items, 2)
	}
}
