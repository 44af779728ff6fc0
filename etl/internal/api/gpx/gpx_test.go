package gpx

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWriter(t *testing.T) {
	var b strings.Builder
	start, speed, heading := time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC), 36.0, 270.0
	w := NewWriter(&b, `truck <1>`)
	w.Add(Point{Time: start, Lat: 52.5, Lon: 180})
	w.Add(Point{Time: start.Add(10 * time.Minute), Lat: 52.5, Lon: 0.0000001, SpeedKmh: &speed, HeadingDeg: &heading})
	w.Add(Point{Time: start.Add(20*time.Minute + time.Millisecond), Lat: 52.5, Lon: 13})
	w.End()
	require.NoError(t, w.Flush())
	text := b.String()
	require.Contains(t, text, "<name>truck &lt;1&gt;</name>")
	require.Contains(t, text, `<trkpt lat="52.5" lon="-180"><time>2026-11-05T12:00:00.000Z</time></trkpt>`)
	require.Contains(t, text, `lon="0.0000001"`)
	require.Contains(t, text, "<gpxtpx:speed>10</gpxtpx:speed><gpxtpx:course>270</gpxtpx:course>")
	require.Equal(t, 2, strings.Count(text, "<trkseg>"))
	require.Equal(t, 2, strings.Count(text, "</trkseg>"))
}

func TestEmptyTrackHasNoSegment(t *testing.T) {
	var b strings.Builder
	w := NewWriter(&b, "truck")
	w.End()
	require.NoError(t, w.Flush())
	require.NotContains(t, b.String(), "trkseg")
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestFlushReturnsFirstError(t *testing.T) {
	w := NewWriter(failing{}, "truck")
	for range 1000 {
		w.Add(Point{Time: time.Unix(1, 0)})
	}
	require.ErrorContains(t, w.Flush(), "connection reset")
}
