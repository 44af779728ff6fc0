// Package gpx writes tracks as GPX 1.1 (https://www.topografix.com/GPX/1/1/gpx.xsd).
package gpx

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"time"
)

// ContentType is the media type of GPX.
const ContentType = "application/gpx+xml"

// newSegment is the gap without a position after which a new segment begins.
const newSegment = 10 * time.Minute

// Point is a position of a track.
type Point struct {
	Time       time.Time
	Lat, Lon   float64
	SpeedKmh   *float64
	HeadingDeg *float64
}

// Writer writes one track. GPX 1.1 has no speed, unlike 1.0. Speed and course go into an extension that other programs
// read, Garmin's TrackPointExtension v2 (https://www8.garmin.com/xmlschemas/TrackPointExtensionv2.xsd), in m/s and degrees.
type Writer struct {
	w    *bufio.Writer // keeps the first error
	last time.Time     // of the open segment; zero: no segment is open
}

const header = xml.Header + `<gpx xmlns="http://www.topografix.com/GPX/1/1" xmlns:gpxtpx="http://www.garmin.com/xmlschemas/TrackPointExtension/v2"` +
	` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://www.topografix.com/GPX/1/1` +
	` https://www.topografix.com/GPX/1/1/gpx.xsd http://www.garmin.com/xmlschemas/TrackPointExtension/v2` +
	` https://www8.garmin.com/xmlschemas/TrackPointExtensionv2.xsd" version="1.1" creator="Fleet Tracing">` + "\n<trk><name>"

// NewWriter begins a track.
func NewWriter(w io.Writer, name string) *Writer {
	g := &Writer{w: bufio.NewWriter(w)}
	g.printf(header)
	_ = xml.EscapeText(g.w, []byte(name))
	g.printf("</name>\n")
	return g
}

func (g *Writer) printf(format string, values ...any) { _, _ = fmt.Fprintf(g.w, format, values...) }

// number formats a number without an exponent, which the schema does not allow.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// Add adds a point that is not older than the one before.
func (g *Writer) Add(p Point) {
	switch {
	case g.last.IsZero():
		g.printf("<trkseg>\n")
	case p.Time.Sub(g.last) > newSegment:
		g.printf("</trkseg>\n<trkseg>\n")
	}
	g.last = p.Time
	if p.Lon == 180 { // the schema excludes 180; -180 is the same meridian
		p.Lon = -180
	}
	g.printf(`<trkpt lat="%s" lon="%s"><time>%s</time>`, number(p.Lat), number(p.Lon), p.Time.UTC().Format("2006-01-02T15:04:05.000Z"))
	if p.SpeedKmh != nil || p.HeadingDeg != nil {
		g.printf("<extensions><gpxtpx:TrackPointExtension>")
		if p.SpeedKmh != nil {
			g.printf("<gpxtpx:speed>%s</gpxtpx:speed>", number(*p.SpeedKmh/3.6))
		}
		if p.HeadingDeg != nil {
			g.printf("<gpxtpx:course>%s</gpxtpx:course>", number(*p.HeadingDeg))
		}
		g.printf("</gpxtpx:TrackPointExtension></extensions>")
	}
	g.printf("</trkpt>\n")
}

// End ends the track. Flush it afterwards.
func (g *Writer) End() {
	if !g.last.IsZero() {
		g.printf("</trkseg>\n")
	}
	g.printf("</trk>\n</gpx>\n")
}

// Flush sends what is buffered, and returns the first error of all writes.
func (g *Writer) Flush() error { return g.w.Flush() }
