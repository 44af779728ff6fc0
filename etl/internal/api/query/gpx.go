package query

import (
	"bufio"
	"encoding/xml"
	"io"
	"strconv"
	"time"
)

// newSegment is the time without a fix after which a track goes on in a segment of its own.
const newSegment = 10 * time.Minute

// gpxWriter writes a track as GPX 1.1 (https://www.topografix.com/GPX/1/1/gpx.xsd). GPX 1.1 has no speed of its own,
// as 1.0 had: speed and course are in an extension that other programs know, Garmin's TrackPointExtension v2
// (https://www8.garmin.com/xmlschemas/TrackPointExtensionv2.xsd), in m/s and degrees.
type gpxWriter struct {
	w    *bufio.Writer // keeps the first error
	last time.Time     // of the segment that is open; zero: none is
}

const gpxHead = xml.Header + `<gpx xmlns="http://www.topografix.com/GPX/1/1" xmlns:gpxtpx="http://www.garmin.com/xmlschemas/TrackPointExtension/v2"` +
	` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://www.topografix.com/GPX/1/1` +
	` https://www.topografix.com/GPX/1/1/gpx.xsd http://www.garmin.com/xmlschemas/TrackPointExtension/v2` +
	` https://www8.garmin.com/xmlschemas/TrackPointExtensionv2.xsd" version="1.1" creator="Fleet Tracing">` + "\n<trk><name>"

func newGPX(w io.Writer, name string) *gpxWriter {
	g := &gpxWriter{w: bufio.NewWriter(w)}
	g.text(gpxHead)
	_ = xml.EscapeText(g.w, []byte(name))
	g.text("</name>\n")
	return g
}

func (g *gpxWriter) text(s string) { _, _ = g.w.WriteString(s) }

func (g *gpxWriter) number(v float64) {
	_, _ = g.w.Write(strconv.AppendFloat(g.w.AvailableBuffer(), v, 'f', -1, 64))
}

// point adds a fix that is no older than the one before.
func (g *gpxWriter) point(ts time.Time, lat, lon float64, speedKmh, headingDeg *float64) {
	switch {
	case g.last.IsZero():
		g.text("<trkseg>\n")
	case ts.Sub(g.last) > newSegment:
		g.text("</trkseg>\n<trkseg>\n")
	}
	g.last = ts
	if lon == 180 { // the schema ends just below: the same meridian has another name
		lon = -180
	}
	g.text(`<trkpt lat="`)
	g.number(lat)
	g.text(`" lon="`)
	g.number(lon)
	g.text(`"><time>`)
	g.text(formatTime(ts))
	g.text("</time>")
	if speedKmh != nil || headingDeg != nil {
		g.text("<extensions><gpxtpx:TrackPointExtension>")
		if speedKmh != nil {
			g.text("<gpxtpx:speed>")
			g.number(*speedKmh / 3.6)
			g.text("</gpxtpx:speed>")
		}
		if headingDeg != nil {
			g.text("<gpxtpx:course>")
			g.number(*headingDeg)
			g.text("</gpxtpx:course>")
		}
		g.text("</gpxtpx:TrackPointExtension></extensions>")
	}
	g.text("</trkpt>\n")
}

func (g *gpxWriter) end() {
	if !g.last.IsZero() {
		g.text("</trkseg>\n")
	}
	g.text("</trk>\n</gpx>\n")
}

func (g *gpxWriter) flush() error { return g.w.Flush() }
