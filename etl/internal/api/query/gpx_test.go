package query

import (
	"encoding/xml"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/gpx"
)

// gpxElement is an element with its children in order: enough to check it against the schema.
type gpxElement struct {
	XMLName  xml.Name
	Attrs    []xml.Attr   `xml:",any,attr"`
	Children []gpxElement `xml:",any"`
	Text     string       `xml:",chardata"`
}

func (e gpxElement) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// points is every trkpt, in the order of the file.
func (e gpxElement) points() (points []gpxElement) {
	for _, segment := range e.segments() {
		points = append(points, segment.Children...)
	}
	return points
}

func (e gpxElement) segments() []gpxElement { return e.Children[0].Children[1:] }

const (
	gpxSpace    = "http://www.topografix.com/GPX/1/1"
	garminSpace = "http://www.garmin.com/xmlschemas/TrackPointExtension/v2"
)

// readGPX reads a file and checks the rules of gpx.xsd 1.1 and TrackPointExtensionv2.xsd: the elements, their order and
// namespace, and the bounds of their types.
func readGPX(t *testing.T, text []byte) gpxElement {
	t.Helper()
	var root gpxElement
	require.NoError(t, xml.Unmarshal(text, &root), string(text))
	require.Equal(t, xml.Name{Space: gpxSpace, Local: "gpx"}, root.XMLName)
	require.Equal(t, "1.1", root.attr("version"))
	require.NotEmpty(t, root.attr("creator"))
	inOrder(t, root, gpxSpace, "metadata", "wpt", "rte", "trk", "extensions")
	require.Len(t, root.Children, 1)
	track := root.Children[0]
	inOrder(t, track, gpxSpace, "name", "cmt", "desc", "src", "link", "number", "type", "extensions", "trkseg")
	require.Equal(t, "name", track.Children[0].XMLName.Local)
	var last time.Time
	for _, segment := range root.segments() {
		inOrder(t, segment, gpxSpace, "trkpt", "extensions")
		for _, point := range segment.Children {
			bounded(t, point.attr("lat"), -90, 90, true)
			bounded(t, point.attr("lon"), -180, 180, false)
			inOrder(t, point, gpxSpace, "ele", "time", "magvar", "geoidheight", "name", "cmt", "desc", "src", "link", "sym", "type",
				"fix", "sat", "hdop", "vdop", "pdop", "ageofdgpsdata", "dgpsid", "extensions")
			for _, child := range point.Children {
				switch child.XMLName.Local {
				case "time":
					ts, err := time.Parse(time.RFC3339Nano, child.Text)
					require.NoError(t, err)
					require.True(t, ts.After(last), "points go on in time")
					last = ts
				case "extensions":
					for _, extension := range child.Children {
						require.NotEqual(t, gpxSpace, extension.XMLName.Space, "extensions are of another namespace")
						require.Equal(t, xml.Name{Space: garminSpace, Local: "TrackPointExtension"}, extension.XMLName)
						inOrder(t, extension, garminSpace, "atemp", "wtemp", "depth", "hr", "cad", "speed", "course", "bearing", "Extensions")
					}
				}
			}
		}
	}
	return root
}

// inOrder checks that an element has only children of these names, in this order.
func inOrder(t *testing.T, e gpxElement, space string, names ...string) {
	t.Helper()
	at := 0
	for _, child := range e.Children {
		require.Equal(t, space, child.XMLName.Space, child.XMLName.Local)
		i := slices.Index(names, child.XMLName.Local)
		require.GreaterOrEqual(t, i, at, "%s in %s", child.XMLName.Local, e.XMLName.Local)
		at = i
	}
}

func bounded(t *testing.T, text string, least, most float64, included bool) {
	t.Helper()
	require.NotContains(t, strings.ToLower(text), "e", "xsd:decimal has no exponent")
	v, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err)
	require.True(t, v >= least && (v < most || included && v == most), "%s", text)
}

func TestGPXIsValidAndHasSegments(t *testing.T) {
	at := func(back time.Duration, lat, lon float64) cassandra.Telemetry {
		return cassandra.Telemetry{DeviceID: "truck:1", FleetID: "fleet-a", Ts: noon.Add(-back), Lat: lat, Lon: lon}
	}
	fast := at(0, 90, -180)
	fast.SpeedKmh, fast.HeadingDeg = ptr(90.0), ptr(270.0)
	turning := at(time.Minute, -90, 0.0000001)
	turning.HeadingDeg = ptr(0.0)
	store := &fakeStore{positions: []cassandra.Telemetry{
		fast, turning,
		at(11*time.Minute, 52.1, 13), // a gap of 10 minutes begins no segment
		at(21*time.Minute+time.Millisecond, 52, 180),
		at(23*time.Hour, 51, 13),
	}}
	g := newFixture(t, store)
	for _, path := range []string{"/v1/devices/truck:1/track?format=gpx", "/v1/devices/truck:1/track?format=gpx&limit=5"} {
		w := g.get("a", path)
		require.Equal(t, 200, w.Code)
		require.Equal(t, gpx.ContentType, w.Header().Get("Content-Type"))
		require.Contains(t, w.Header().Get("Content-Disposition"), `"track-truck_1.gpx"`)
		root := readGPX(t, w.Body.Bytes())
		require.Equal(t, "truck:1", root.Children[0].Children[0].Text)
		sizes := []int{}
		for _, segment := range root.segments() {
			sizes = append(sizes, len(segment.Children))
		}
		require.Equal(t, []int{1, 1, 3}, sizes)
		points := root.points()
		assert.Equal(t, "-180", points[1].attr("lon"), "180 is -180")
		assert.Equal(t, "0.0000001", points[3].attr("lon"))
		last := points[4].Children
		require.Equal(t, "2026-11-05T12:00:00.000Z", last[0].Text)
		require.Equal(t, []string{"25", "270"}, []string{last[1].Children[0].Children[0].Text, last[1].Children[0].Children[1].Text}, "90 km/h are 25 m/s")
		require.Len(t, points[0].Children, 1, "no extension without speed and heading")
	}
	none := readGPX(t, g.get("a", "/v1/devices/truck:2/track?format=gpx").Body.Bytes())
	require.Empty(t, none.points(), "an empty track is valid too")
}

func TestDenseTrackAsGPX(t *testing.T) {
	// A burst of 20,000 positions in 20 seconds, a day of one per minute, and weeks without any.
	positions := append(drive("truck-1", "fleet-a", noon.Add(-10*time.Hour), 20_000, time.Millisecond), drive("truck-1", "fleet-a", noon, 500, time.Minute)...)
	positions = append(positions, drive("truck-1", "fleet-a", noon.Add(-29*24*time.Hour), 3, time.Minute)...)
	store := &fakeStore{positions: positions}
	g := newFixture(t, store)
	w := g.get("a", "/v1/devices/truck-1/track?format=gpx&from=-30d")
	require.Len(t, readGPX(t, w.Body.Bytes()).points(), len(positions))
	require.LessOrEqual(t, store.most, streamRows)
	require.Less(t, store.asked(), 100)
}
