package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// snapshot is what a program exports at one moment, by "name|value|value": the name of a metric and the values of its
// labels in the order of their names.
type snapshot struct {
	values     map[string]float64 // of a histogram, its _count and _sum
	histograms map[string]histogram
}

// get reads from the metrics endpoint. The caller closes the body.
func (p *Probe) get(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Address+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim))) // only protobuf has native histograms
	response, err := http.DefaultClient.Do(request)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.Join(fmt.Errorf("read %s: status %s", request.URL, response.Status), response.Body.Close())
	}
	return response, err
}

// cpuProfile writes a CPU profile of the next seconds to a file.
func (p *Probe) cpuProfile(ctx context.Context, lasts time.Duration) (err error) {
	response, err := p.get(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", max(1, int(lasts.Seconds()))))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	file, err := os.Create(p.Profile)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response.Body)
	return errors.Join(err, file.Close())
}

func (p *Probe) scrape(ctx context.Context) (snapshot, error) {
	s := snapshot{values: map[string]float64{}, histograms: map[string]histogram{}}
	response, err := p.get(ctx, "/metrics")
	if err != nil {
		return s, err
	}
	defer response.Body.Close()
	decoder := expfmt.NewDecoder(response.Body, expfmt.ResponseFormat(response.Header))
	for {
		family := new(dto.MetricFamily)
		if err := decoder.Decode(family); errors.Is(err, io.EOF) {
			return s, nil
		} else if err != nil {
			return s, fmt.Errorf("read metrics of %s: %w", p.Address, err)
		}
		s.add(family)
	}
}

func (s snapshot) add(family *dto.MetricFamily) {
	name := family.GetName()
	for _, m := range family.GetMetric() {
		labels := ""
		for _, l := range m.GetLabel() {
			labels += "|" + l.GetValue()
		}
		if m.Histogram == nil { // at most one of these is set; summaries have no use here
			s.values[name+labels] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
			continue
		}
		s.values[name+"_count"+labels] = float64(m.Histogram.GetSampleCount())
		s.values[name+"_sum"+labels] = m.Histogram.GetSampleSum()
		s.histograms[name+labels] = nativeHistogram(m.Histogram)
	}
}

// sum adds up the series of a metric.
func (s snapshot) sum(name string) (sum float64) {
	for key, value := range s.values {
		if key == name || strings.HasPrefix(key, name+"|") {
			sum += value
		}
	}
	return sum
}

// grown is by how much a value grew from before.
func (s snapshot) grown(before snapshot, key string) float64 {
	return s.values[key] - before.values[key]
}

// observed is what a histogram observed since before.
func (s snapshot) observed(before snapshot, key string) histogram {
	return histogram{}.add(s.histograms[key], 1).add(before.histograms[key], -1)
}
