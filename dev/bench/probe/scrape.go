package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// snapshot is what a program exports at one moment, by "name|value|value": the name of a metric and the values of its
// labels in the order of their names.
type snapshot struct {
	values     map[string]float64 // of a histogram, its _count and _sum
	histograms map[string]histogram
}

// scrape reads a metrics endpoint as protobuf, the only format with native histograms.
func scrape(ctx context.Context, url string) (s snapshot, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return s, err
	}
	request.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return s, fmt.Errorf("read metrics: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return s, fmt.Errorf("read metrics of %s: status %s", url, response.Status)
	}
	s = snapshot{values: map[string]float64{}, histograms: map[string]histogram{}}
	decoder := expfmt.NewDecoder(response.Body, expfmt.ResponseFormat(response.Header))
	for {
		family := new(dto.MetricFamily)
		if err := decoder.Decode(family); errors.Is(err, io.EOF) {
			return s, nil
		} else if err != nil {
			return s, fmt.Errorf("read metrics of %s: %w", url, err)
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
		switch {
		case m.Histogram != nil:
			s.values[name+"_count"+labels] = float64(m.Histogram.GetSampleCount())
			s.values[name+"_sum"+labels] = m.Histogram.GetSampleSum()
			s.histograms[name+labels] = nativeHistogram(m.Histogram)
		case m.Summary != nil:
			s.values[name+"_count"+labels] = float64(m.Summary.GetSampleCount())
			s.values[name+"_sum"+labels] = m.Summary.GetSampleSum()
		default: // at most one of these is set
			s.values[name+labels] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
		}
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
