package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/procfs"
)

// snapshot is what fleet-etl exports at one moment, by "name|value|value": the name of a metric and the values of its
// labels in the order of their names. It also has what the kernel counts.
type snapshot struct {
	at          time.Time
	nodes, busy float64 // CPU seconds of the nodes, and of the machine
	values      map[string]float64
	histograms  map[string]histogram
}

// since has by how much everything grew from before.
func (s snapshot) since(before snapshot) snapshot {
	d := snapshot{nodes: s.nodes - before.nodes, busy: s.busy - before.busy, values: map[string]float64{}, histograms: map[string]histogram{}}
	for key, value := range s.values {
		d.values[key] = value - before.values[key]
	}
	for key, h := range s.histograms {
		d.histograms[key] = h.plus(before.histograms[key], -1)
	}
	return d
}

func (p *Probe) scrape(ctx context.Context) (s snapshot, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Address+"/metrics", nil)
	if err != nil {
		return s, err
	}
	request.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim))) // only protobuf has native histograms
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return s, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return s, fmt.Errorf("read %s: status %s", request.URL, response.Status)
	}
	s = snapshot{at: time.Now(), nodes: p.Nodes.CPUSeconds(), values: map[string]float64{}, histograms: map[string]histogram{}}
	decoder := expfmt.NewDecoder(response.Body, expfmt.ResponseFormat(response.Header))
	for {
		family := new(dto.MetricFamily)
		if err := decoder.Decode(family); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return s, fmt.Errorf("read metrics of %s: %w", p.Address, err)
		}
		for _, m := range family.GetMetric() {
			key := family.GetName()
			for _, l := range m.GetLabel() {
				key += "|" + l.GetValue()
			}
			if m.Histogram != nil {
				s.histograms[key] = nativeHistogram(m.Histogram)
			} else { // at most one of these is set; summaries have no use here
				s.values[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
			}
		}
	}
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return s, err
	}
	stat, err := fs.Stat()
	cpu := stat.CPUTotal
	s.busy = cpu.User + cpu.Nice + cpu.System + cpu.IRQ + cpu.SoftIRQ + cpu.Steal
	return s, err
}
