package loadtest

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestBottleneck(t *testing.T) {
	measured := func(busy, client, server, inFlight, limit, extract, load float64) *Measurement {
		return &Measurement{
			Seconds: 10, Cores: 2, Busy: busy, Client: Client{CPUSeconds: 20 * client}, Server: Server{CPUSeconds: 20 * server, Here: true},
			Loader: Loader{InFlight: inFlight, Limit: limit, Most: 128, Queues: map[string]float64{"extract": extract, "load": load}},
		}
	}
	for name, c := range map[string]struct {
		m    *Measurement
		want string
	}{
		"nothing":                {measured(.40, .10, .30, 3, 16, 0, 0), "nothing is full"},
		"the nodes' CPU":         {measured(.97, .20, .75, 120, 128, 1, 1), "CPU of the machine, most of it the nodes'"},
		"our CPU":                {measured(.97, .70, .20, 2, 16, 1, 0), "CPU of the machine, most of it fleet-etl's"},
		"others":                 {measured(.97, .20, .30, 2, 16, 0, 0), "CPU of the machine, most of it other programs'"},
		"our CPU, nodes away":    {measured(.87, .86, 0, 2, 16, 1, 0), "CPU of fleet-etl"},
		"our own bound":          {measured(.50, .10, .20, 126, 128, 1, 1), "ETL_MAX_IN_FLIGHT"},
		"slow answers":           {measured(.50, .10, .20, 10, 10.5, 1, 1), "answers of the nodes"},
		"transform":              {measured(.55, .50, .05, 2, 16, .95, .1), "transform"},
		"loader":                 {measured(.55, .50, .05, 2, 16, 1, .95), "planning of windows in the loader"},
		"a limit that is unread": {measured(.40, .10, .30, 0, 0, 0, 0), "nothing is full"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Bottleneck(c.m)
			assert.Equal(t, c.want, got.Name)
			assert.NotEmpty(t, got.Why)
		})
	}
}
