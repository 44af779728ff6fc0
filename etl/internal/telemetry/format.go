package telemetry

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// FormatNumber formats a measured value for people, with at most one decimal.
func FormatNumber(v float64) string {
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

// FormatDuration formats a duration for people, in its two largest units: "2 d 3 h", "1 h", "1 min 20 s".
func FormatDuration(d time.Duration) string {
	units := [...]struct {
		name string
		unit time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}}
	d = d.Round(time.Second)
	for i, u := range units {
		n := d / u.unit
		if n == 0 && u.unit > time.Second {
			continue
		}
		text := fmt.Sprintf("%d %s", n, u.name)
		if i+1 < len(units) {
			if rest := d % u.unit / units[i+1].unit; rest > 0 {
				text += fmt.Sprintf(" %d %s", rest, units[i+1].name)
			}
		}
		return text
	}
	return ""
}
