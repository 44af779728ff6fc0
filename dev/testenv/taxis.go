package testenv

import (
	"bufio"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What Taxis writes.
const (
	TaxiCount   = 475
	TaxiRecords = 20_188
)

// Taxis writes a CSV file with a day of taxis and returns its path. The file is like recordings from taxi companies: positions
// only, in local time without offset, taxi after taxi, with irregular intervals, long gaps, long stops and GPS outliers. It is the
// same file each time.
func Taxis(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "taxis.csv")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(file)
	fmt.Fprintln(w, "longitude,latitude,timestamp,taxi")
	rng := rand.New(rand.NewPCG(2020, 718))
	counts := make([]int, TaxiCount)
	for i := range TaxiRecords {
		if i < TaxiCount {
			counts[i]++ // every taxi has a record
		} else {
			counts[int(TaxiCount*math.Pow(rng.Float64(), 1.6))]++ // a few have hundreds
		}
	}
	for i, n := range counts {
		writeTaxi(w, rng, fmt.Sprintf("taxi-%03d", i+1), n)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// taxiDay is the local time span of the records.
var taxiDay = [2]time.Time{time.Date(2020, 7, 18, 8, 0, 0, 0, time.UTC), time.Date(2020, 7, 18, 23, 59, 0, 0, time.UTC)}

// writeTaxi writes n records of a taxi that drives between random places of a city.
func writeTaxi(w *bufio.Writer, rng *rand.Rand, taxi string, n int) {
	uniform := func(least, most float64) float64 { return least + (most-least)*rng.Float64() }
	seconds := func(least, most float64) time.Duration { return time.Duration(uniform(least, most)) * time.Second }
	interval := 150.0 // seconds
	if n > 100 || rng.IntN(3) == 0 {
		interval = 52
	}
	spare := taxiDay[1].Sub(taxiDay[0]) - time.Duration(float64(n)*(interval+5))*time.Second
	offset := seconds(0, spare.Seconds())
	at := taxiDay[0].Add(offset)
	spare -= offset

	lat, lon := uniform(31.45, 31.70), uniform(120.15, 120.45)
	toLat, toLon, speed := lat, lon, 0.0
	var standing time.Duration
	for range n {
		y, x := lat+uniform(-3e-5, 3e-5), lon+uniform(-3e-5, 3e-5) // GPS error of three meters
		if rng.IntN(2000) == 0 {
			x += 0.7 // an outlier
		}
		fmt.Fprintf(w, "%.7f,%.7f,%s,%s\n", x, y, at.Format(time.DateTime), taxi)

		step := seconds(interval-3, interval+5)
		if gap := seconds(300, 3600); rng.IntN(12) == 0 && gap < spare {
			step, spare = step+gap, spare-gap
		}
		at = at.Add(step)
		if standing -= step; standing > 0 {
			continue
		}
		north, east := (toLat-lat)*111.2, (toLon-lon)*94.8 // km to the destination
		share := speed * step.Hours() / math.Hypot(north, east)
		if share < 1 {
			lat, lon = lat+share*(toLat-lat), lon+share*(toLon-lon)
			continue
		}
		lat, lon = toLat, toLon
		toLat, toLon, speed = lat+uniform(-.06, .06), lon+uniform(-.06, .06), uniform(20, 60)
		if rng.IntN(2) == 0 {
			standing = seconds(120, 1200)
		}
	}
}
