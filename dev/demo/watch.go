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

// watch shows what flows, and what dies, until the demo is ended. Without fleet-etl there is no demo; all else it outlives.
func (d *Demo) watch(ctx context.Context, nodes []cluster.Node, etl *child, others ...*monitoring.Process) error {
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	parts := newParts(nodes, others)
	shown := false
	for {
		select {
		case <-ticker.C:
		case <-etl.Done:
			return etl.ended()
		case <-ctx.Done():
			return nil
		}
		for _, news := range parts.news(d.cluster.Nodes()) {
			d.printf("%s  %s\n", time.Now().Format(time.TimeOnly), news)
		}
		flow, err := readFlow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			d.printf("metrics: %s\n", err)
			continue
		}
		d.printf("%s  %s\n", time.Now().Format(time.TimeOnly), flow)
		if !shown && flow.stored > 0 {
			shown = true
			if err := d.showFleet(ctx, nodes[0]); err != nil && ctx.Err() == nil {
				d.printf("newest fixes: %s\n", err)
			}
		}
	}
}

// parts remembers which parts of the demo run, so that each end and each return is told once.
type parts struct {
	nodes  map[int]cluster.State
	others []*monitoring.Process
}

func newParts(nodes []cluster.Node, others []*monitoring.Process) *parts {
	p := &parts{nodes: map[int]cluster.State{}}
	for _, n := range nodes {
		p.nodes[n.N] = cluster.Running
	}
	for _, o := range others {
		if o != nil {
			p.others = append(p.others, o)
		}
	}
	return p
}

func (p *parts) news(nodes []cluster.Node, err error) (news []string) {
	if err != nil {
		news = append(news, "cluster: "+err.Error())
	}
	for _, n := range nodes {
		if n.State == p.nodes[n.N] {
			continue
		}
		p.nodes[n.N] = n.State
		if n.State == cluster.Running {
			news = append(news, fmt.Sprintf("%s is running again", n))
			continue
		}
		news = append(news, fmt.Sprintf("%s is %s: `go run ./dev cluster start %d` starts it; its log is %s", n, n.State, n.N, n.LogFile))
	}
	var left []*monitoring.Process
	for _, o := range p.others {
		if err := o.Running(); err != nil {
			news = append(news, err.Error())
			continue
		}
		left = append(left, o)
	}
	p.others = left
	return news
}

// flow is what fleet-etl has done since it started.
type flow struct{ stored, late, rejected float64 }

func (f flow) String() string {
	return fmt.Sprintf("%.0f records stored, %.0f late, %.0f rejected", f.stored, f.late, f.rejected)
}

func readFlow(ctx context.Context) (f flow, err error) {
	err = get(ctx, "/metrics", func(r io.Reader) error {
		return eachSample(r, func(name string, value float64) {
			switch {
			case strings.HasPrefix(name, `fleet_etl_records_written_total{table="telemetry_by_device_day"}`):
				f.stored = value
			case strings.HasPrefix(name, "fleet_etl_records_rejected_total{"):
				f.rejected += value
			case name == "fleet_etl_records_late_total":
				f.late = value
			}
		})
	})
	return f, err
}

// eachSample reads the text form of metrics, a sample a line.
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

// showFleet reads back what was stored, as the screens do.
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
	fixes, err := store.LatestOfFleet(ctx, demoFleet)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nnewest fixes of %s, %d vehicles:\nDEVICE\tTIME\tLAT\tLON\tKM/H\tBATTERY %%\tTEMP °C\tZONE\n", demoFleet, len(fixes))
	for _, f := range fixes[:min(5, len(fixes))] {
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
