package generator

import (
	"math"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// byVehicle gives each vehicle's records in order.
func byVehicle(t testing.TB, opts Options) map[string][]telemetry.Record {
	t.Helper()
	tracks := map[string][]telemetry.Record{}
	for _, e := range run(t, opts) {
		tracks[e.Record.DeviceID] = append(tracks[e.Record.DeviceID], e.Record)
	}
	return tracks
}

// greatCircle is the distance in meters and the bearing in degrees, by the haversine formula.
func greatCircle(a, b *telemetry.Record) (meters, bearing float64) {
	rad := math.Pi / 180
	sinLat, sinLon := math.Sin((b.Lat-a.Lat)*rad/2), math.Sin((b.Lon-a.Lon)*rad/2)
	cosA, cosB := math.Cos(a.Lat*rad), math.Cos(b.Lat*rad)
	meters = 2 * telemetry.EarthRadiusM * math.Asin(math.Sqrt(sinLat*sinLat+cosA*cosB*sinLon*sinLon))
	y := math.Sin((b.Lon-a.Lon)*rad) * cosB
	x := cosA*math.Sin(b.Lat*rad) - math.Sin(a.Lat*rad)*cosB*math.Cos((b.Lon-a.Lon)*rad)
	return meters, math.Mod(math.Atan2(y, x)/rad+360, 360)
}

// apart is the angle between two headings, 0 to 180 degrees.
func apart(a, b float64) float64 { return math.Abs(math.Remainder(a-b, 360)) }

func TestVehiclesDrivePlausibly(t *testing.T) {
	const vehicles, hours = 25, 3
	opts := Options{Seed: 110, Vehicles: vehicles, Interval: time.Second, Start: monday, Records: vehicles * hours * 3600}
	moving, total, turns := 0, 0, 0
	for id, track := range byVehicle(t, opts) {
		driven, claimed := 0.0, 0.0
		for i := 1; i < len(track); i++ {
			a, b := &track[i-1], &track[i]
			from, to := a.SpeedKmh.Value/3.6, b.SpeedKmh.Value/3.6
			meters, bearing := greatCircle(a, b)
			driven, claimed = driven+meters, claimed+(from+to)/2
			total++
			if to > 0 {
				moving++
			}

			// 1e-6 degrees are 0.11 m; within a second a speed may rise and fall by what 2 m/s² give.
			if off := math.Abs(meters - (from+to)/2); off > 0.6 {
				t.Fatalf("%s %v: moved %.2f m in a second at %.2f to %.2f m/s", id, b.Time(), meters, from, to)
			}
			if acc := to - from; math.Abs(acc) > 1.9 {
				t.Fatalf("%s %v: acceleration %.2f m/s²", id, b.Time(), acc)
			}
			if from == 0 || to == 0 {
				continue
			}
			turn := apart(a.HeadingDeg.Value, b.HeadingDeg.Value)
			if turn > 45 {
				t.Fatalf("%s %v: turned %.0f° in a second", id, b.Time(), turn)
			}
			if turn > 15 {
				turns++
				if from > 45/3.6 {
					t.Fatalf("%s %v: turned %.0f° in a second at %.0f km/h", id, b.Time(), turn, from*3.6)
				}
			}
			// The mean heading is the direction of movement; rounding to 0.11 m blurs short moves.
			middle := a.HeadingDeg.Value + math.Remainder(b.HeadingDeg.Value-a.HeadingDeg.Value, 360)/2
			if off := apart(bearing, middle); meters > 2 && off > 5+turn/2 {
				t.Fatalf("%s %v: heads %.0f° but moves %.0f°", id, b.Time(), middle, bearing)
			}
		}
		if math.Abs(driven-claimed) > 0.01*driven+5 {
			t.Errorf("%s drove %.0f m, its speeds make %.0f m", id, driven, claimed)
		}
	}
	if share := float64(moving) / float64(total); share < 0.15 || share > 0.8 {
		t.Errorf("vehicles move in %.0f %% of the time", share*100)
	}
	if turns < vehicles*hours {
		t.Errorf("%d seconds of turning in %d vehicle hours", turns, vehicles*hours)
	}
}

// A longer interval passes over many phases at once and must come to the same.
func TestIntervalDoesNotAffectRoutes(t *testing.T) {
	opts := Options{Seed: 2, Vehicles: 20, Interval: 10 * time.Minute, Start: monday, Records: 20 * 6 * 8}
	for id, track := range byVehicle(t, opts) {
		for i := 1; i < len(track); i++ {
			meters, _ := greatCircle(&track[i-1], &track[i])
			if meters > 600*140/3.6 {
				t.Errorf("%s moved %.0f m in ten minutes", id, meters)
			}
		}
	}
}

func TestStopsOfEveryLength(t *testing.T) {
	opts := Options{Seed: 5, Vehicles: 30, Interval: 2 * time.Second, Start: monday, Records: 30 * 1800 * 8}
	lights, visits, rests := 0, 0, 0
	for _, track := range byVehicle(t, opts) {
		since := -1
		for i := range track {
			switch stands := track[i].SpeedKmh.Value == 0; {
			case stands && since < 0:
				since = i
			case !stands && since >= 0:
				switch d := time.Duration(i-since) * opts.Interval; {
				case since == 0: // it may have stood for longer
				case d < time.Minute:
					lights++
				case d < 30*time.Minute:
					visits++
				default:
					rests++
				}
				since = -1
			}
		}
		if since > 0 && time.Duration(len(track)-since)*opts.Interval > time.Hour {
			rests++
		}
	}
	if lights < 100 || visits < 100 || rests < 5 {
		t.Errorf("%d stops under a minute, %d visits, %d rests in eight hours of 30 vehicles", lights, visits, rests)
	}
}
