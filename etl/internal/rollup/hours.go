package rollup

import (
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const hourMs = int64(time.Hour / time.Millisecond)

// hours is the current hour of a device.
type hours struct {
	Now    hour   `json:"n,omitzero"`
	Others []hour `json:"o,omitempty"` // the same hour in other fleets; never changed in place, since copies share it
}

// hour is a compact Hour.
type hour struct {
	Fleet     string  `json:"f,omitzero"` // empty before the first position
	StartMs   int64   `json:"s,omitzero"`
	Km        float64 `json:"k,omitzero"`
	SpeedSum  float64 `json:"u,omitzero"`
	SpeedMax  float64 `json:"m,omitzero"`
	Speeds    uint32  `json:"c,omitzero"`
	Positions uint32  `json:"r,omitzero"`
	Driving   uint32  `json:"d,omitzero"` // ms
	Alerts    int32   `json:"a,omitzero"`
}

// enter switches to the hour of an event time and a fleet. Earlier hours become final.
func (h *hours) enter(fleetID string, timeMs int64, sink Sink) {
	start := timeMs - timeMs%hourMs
	if fleetID == h.Now.Fleet {
		fleetID = h.Now.Fleet // does not retain the input of the record
	}
	switch {
	case h.Now.StartMs != start || h.Now.Fleet == "":
		h.emit(sink)
		*h = hours{Now: hour{Fleet: fleetID, StartMs: start}}
	case h.Now.Fleet != fleetID:
		now, others := hour{Fleet: fleetID, StartMs: start}, []hour{h.Now}
		for _, o := range h.Others {
			if o.Fleet == fleetID {
				now = o
			} else {
				others = append(others, o)
			}
		}
		*h = hours{now, others}
	}
}

func (h *hours) emit(sink Sink) {
	for i := range h.Others {
		sink.Hour(h.Others[i].row())
	}
	if h.Now.Fleet != "" {
		sink.Hour(h.Now.row())
	}
}

func (h *hour) addSegment(s segment) {
	if s.jump() {
		return
	}
	h.Km += s.km
	if s.driving() {
		h.Driving += uint32(s.ms)
	}
}

func (h *hour) addPosition(r *telemetry.Record) {
	h.Positions++
	if v := r.SpeedKmh; v.Valid {
		h.Speeds++
		h.SpeedSum += v.Value
		h.SpeedMax = max(h.SpeedMax, v.Value)
	}
}

func (h *hour) row() Hour {
	return Hour{
		FleetID: h.Fleet, StartMs: h.StartMs,
		DistanceKm: h.Km, SpeedSumKmh: h.SpeedSum, SpeedCount: int64(h.Speeds), Records: int64(h.Positions),
		MaxSpeedKmh: telemetry.Optional[float64]{Value: h.SpeedMax, Valid: h.Speeds > 0},
		DrivingMs:   int64(h.Driving), Alerts: h.Alerts,
	}
}
