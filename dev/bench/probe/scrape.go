package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
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

// histogram is a native histogram of Prometheus. Its buckets are by the binary logarithm of their upper bounds: bounds of
// a coarser schema are also bounds of a finer one.
type histogram struct {
	count, sum float64
	buckets    map[float64]float64
}

func nativeHistogram(h *dto.Histogram) histogram {
	width := math.Exp2(-float64(h.GetSchema()))
	n := histogram{float64(h.GetSampleCount()), h.GetSampleSum(), map[float64]float64{math.Inf(-1): float64(h.GetZeroCount())}}
	index, next, count := 0, 0, int64(0)
	for _, span := range h.GetPositiveSpan() {
		index += int(span.GetOffset())
		for range span.GetLength() {
			count += h.GetPositiveDelta()[next]
			n.buckets[float64(index)*width] = float64(count)
			index++
			next++
		}
	}
	return n
}

// plus adds another histogram some times over: 1 merges two, -1 leaves what was observed since the other.
func (h histogram) plus(other histogram, times float64) histogram {
	sum := histogram{h.count + times*other.count, h.sum + times*other.sum, map[float64]float64{}}
	maps.Copy(sum.buckets, h.buckets)
	for bound, count := range other.buckets {
		sum.buckets[bound] += times * count
	}
	return sum
}

// Quantiles of durations, in seconds. Quantiles of a histogram are exact to a tenth.
type Quantiles struct{ Count, P50, P95, P99, Max float64 }

func (h histogram) quantiles() Quantiles {
	bounds := slices.Sorted(maps.Keys(h.buckets))
	at := func(share float64) float64 {
		seen := 0.0
		for _, bound := range bounds {
			if seen += h.buckets[bound]; seen > 0 && seen >= share*h.count {
				return math.Exp2(bound)
			}
		}
		return 0
	}
	return Quantiles{h.count, at(.50), at(.95), at(.99), at(1)}
}
