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
	s := int(d.Round(time.Second).Seconds())
	values, units := [...]int{s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60}, [...]string{"d", "h", "min", "s"}
	i := 0
	for i < len(units)-1 && values[i] == 0 {
		i++
	}
	text := fmt.Sprintf("%d %s", values[i], units[i])
	if i+1 < len(units) && values[i+1] > 0 {
		text += fmt.Sprintf(" %d %s", values[i+1], units[i+1])
	}
	return text
}
