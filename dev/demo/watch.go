package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
)

// watch prints the progress and ended programs until ctx ends. The end of fleet-etl ends the demo, that of other programs does not.
func (d *Demo) watch(ctx context.Context, nodes []cluster.Node, etl *child, others ...*monitoring.Process) error {
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	states := newStates(nodes, others)
	shown := false
	for {
		select {
		case <-ticker.C:
		case <-etl.Done:
			return etl.ended()
		case <-ctx.Done():
			return nil
		}
		for _, change := range states.changes(d.cluster.Nodes()) {
			d.printf("%s  %s\n", time.Now().Format(time.TimeOnly), change)
		}
		counts, err := readCounts(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			d.printf("metrics: %s\n", err)
			continue
		}
		d.printf("%s  %s\n", time.Now().Format(time.TimeOnly), counts)
		if !shown && counts.stored > 0 {
			shown = true
			if err := d.showFleet(ctx, nodes[0]); err != nil && ctx.Err() == nil {
				d.printf("latest positions: %s\n", err)
			}
		}
	}
}

// states has the last printed state of each program, so that each change is printed once.
type states struct {
	nodes  map[int]cluster.State
	others []*monitoring.Process
}

func newStates(nodes []cluster.Node, others []*monitoring.Process) *states {
	s := &states{nodes: map[int]cluster.State{}}
	for _, n := range nodes {
		s.nodes[n.N] = cluster.Running
	}
	for _, o := range others {
		if o != nil {
			s.others = append(s.others, o)
		}
	}
	return s
}

func (s *states) changes(nodes []cluster.Node, err error) (changes []string) {
	if err != nil {
		changes = append(changes, "cluster: "+err.Error())
	}
	for _, n := range nodes {
		if n.State == s.nodes[n.N] {
			continue
		}
		s.nodes[n.N] = n.State
		if n.State == cluster.Running {
			changes = append(changes, fmt.Sprintf("%s is running again", n))
			continue
		}
		changes = append(changes, fmt.Sprintf("%s is %s: `go run ./dev cluster start %d` starts it; its log: %s", n, n.State, n.N, n.LogFile))
	}
	var left []*monitoring.Process
	for _, o := range s.others {
		if err := o.Running(); err != nil {
			changes = append(changes, err.Error())
			continue
		}
		left = append(left, o)
	}
	s.others = left
	return changes
}

// counts has the counters of fleet-etl since its start.
type counts struct{ stored, late, rejected float64 }

func (c counts) String() string {
	return fmt.Sprintf("%.0f records stored, %.0f late, %.0f rejected", c.stored, c.late, c.rejected)
}

func readCounts(ctx context.Context) (c counts, err error) {
	err = get(ctx, "/metrics", func(r io.Reader) error {
		return eachSample(r, func(name string, value float64) {
			switch {
			case strings.HasPrefix(name, `fleet_etl_records_written_total{table="telemetry_by_device_day"}`):
				c.stored = value
			case strings.HasPrefix(name, "fleet_etl_records_rejected_total{"):
				c.rejected += value
			case name == "fleet_etl_records_late_total":
				c.late = value
			}
		})
	})
	return c, err
}

// eachSample parses metrics in text format, one sample per line.
func eachSample(r io.Reader, take func(name string, value float64)) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(name, "#") {
			take(name, v)
		}
	}
	return lines.Err()
}

// showFleet prints the stored latest positions, as the dashboards read them.
func (d *Demo) showFleet(ctx context.Context, node cluster.Node) error {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	store, err := cassandra.Open(ctx, cassandra.Config{
		Hosts: []string{node.CQL().String()}, Keyspace: "fleet_iot", LocalDC: node.DC,
	}, logger, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	latest, err := store.LatestOfFleet(ctx, demoFleet)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nlatest positions of %s, %d vehicles:\nDEVICE\tTIME\tLAT\tLON\tKM/H\tBATTERY %%\tTEMP °C\tZONE\n", demoFleet, len(latest))
	for _, f := range latest[:min(5, len(latest))] {
		fmt.Fprintf(w, "%s\t%s\t%.5f\t%.5f\t%s\t%s\t%s\t%s\n", f.DeviceID, f.Ts.Local().Format(time.TimeOnly), f.Lat, f.Lon,
			show(f.SpeedKmh), show(f.BatteryPct), show(f.TempC), f.Zone)
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func show[T any](v *T) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprint(*v)
}
